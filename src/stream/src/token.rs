//! One-time addresses: a random token for each request, valid once and for a short while.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::backend::{AttachRequest, ExecRequest, PortForwardRequest};

/// Addresses that are handed out and not used yet. A kubelet uses each at once.
pub(crate) const MAX_OUTSTANDING: usize = 1000;

/// What a token stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ticket {
    Exec(ExecRequest),
    Attach(AttachRequest),
    PortForward(PortForwardRequest),
}

impl Ticket {
    /// The first part of the address.
    pub(crate) fn path(&self) -> &'static str {
        match self {
            Self::Exec(_) => "exec",
            Self::Attach(_) => "attach",
            Self::PortForward(_) => "portforward",
        }
    }
}

/// More than [`MAX_OUTSTANDING`] tokens wait for their use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

/// The tokens of a server.
#[derive(Debug)]
pub(crate) struct Tokens {
    life: Duration,
    waiting: Mutex<HashMap<String, (Ticket, Instant)>>,
}

impl Tokens {
    pub(crate) fn new(life: Duration) -> Self {
        Self { life, waiting: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, (Ticket, Instant)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A token of 128 random bits for a request.
    pub(crate) fn issue(&self, ticket: Ticket) -> Result<String, Full> {
        let bytes: [u8; 16] = rand::random();
        let token: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        let now = Instant::now();
        let mut waiting = self.lock();
        if waiting.len() >= MAX_OUTSTANDING {
            waiting.retain(|_, (_, expires)| *expires > now);
        }
        if waiting.len() >= MAX_OUTSTANDING {
            return Err(Full);
        }
        waiting.insert(token.clone(), (ticket, now + self.life));
        Ok(token)
    }

    /// The request of `/<kind>/<token>`. Whatever comes of it, the token is used up.
    pub(crate) fn redeem(&self, path: &str) -> Option<Ticket> {
        let (kind, token) = path.strip_prefix('/')?.split_once('/')?;
        let (ticket, expires) = self.lock().remove(token)?;
        (expires > Instant::now() && ticket.path() == kind).then_some(ticket)
    }
}

#[cfg(test)]
mod tests {
    use crisp_model::SandboxId;

    use super::*;

    fn ticket() -> Ticket {
        Ticket::PortForward(PortForwardRequest { sandbox: SandboxId::random(), ports: vec![80] })
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_works_once_and_not_for_long() {
        let tokens = Tokens::new(Duration::from_secs(60));
        let wanted = ticket();
        let token = tokens.issue(wanted.clone()).unwrap();
        assert_eq!(token.len(), 32);
        assert_eq!(tokens.redeem(&format!("/portforward/{token}")), Some(wanted));
        assert_eq!(tokens.redeem(&format!("/portforward/{token}")), None);

        let late = tokens.issue(ticket()).unwrap();
        tokio::time::advance(Duration::from_secs(61)).await;
        assert_eq!(tokens.redeem(&format!("/portforward/{late}")), None);

        let wrong_kind = tokens.issue(ticket()).unwrap();
        assert_eq!(tokens.redeem(&format!("/exec/{wrong_kind}")), None);
        for path in ["", "/", "/exec", "/exec/", "/portforward/0", "//", "/portforward/../x"] {
            assert_eq!(tokens.redeem(path), None, "{path}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_number_of_tokens_is_bounded_and_expired_ones_make_room() {
        let tokens = Tokens::new(Duration::from_secs(60));
        for _ in 0..MAX_OUTSTANDING {
            tokens.issue(ticket()).unwrap();
        }
        assert_eq!(tokens.issue(ticket()), Err(Full));
        tokio::time::advance(Duration::from_secs(61)).await;
        assert!(tokens.issue(ticket()).is_ok());
    }
}
