//! The built-in network, for a host without CNI configuration.
//!
//! One thread owns it ([`engine`]); requests are queued to it and carried out one after the other. The kernel takes
//! one change of links at a time anyway (the rtnl lock), each takes well under a millisecond, and one owner means that
//! no address or port is ever given twice. The thread may visit a pod's namespace, which no tokio thread must.

mod attach;
mod bandwidth;
mod bridge;
mod cidr;
pub(crate) mod engine;
pub(crate) mod firewall;
mod iptables;
mod lease;
mod netns;
mod nft;
mod pool;
mod sysctl;

use tokio::sync::{mpsc, oneshot};

use crate::{BuiltinConfig, NetworkError};
use engine::Engine;

type Work = Box<dyn FnOnce(&mut Engine) + Send>;

/// Requests that wait for the thread; the kubelet sends at most some hundred at a time, and more just wait to queue.
const QUEUE: usize = 256;

/// The way to the thread. It ends when the last of these has gone.
#[derive(Debug, Clone)]
pub(crate) struct Builtin {
    queue: mpsc::Sender<Work>,
}

impl Builtin {
    /// Reads the state and starts the thread. Must not be called on a thread that is in another network namespace.
    pub(crate) fn open(config: BuiltinConfig) -> Result<Self, NetworkError> {
        let mut engine = Engine::open(config)?;
        let (queue, mut waiting) = mpsc::channel::<Work>(QUEUE);
        std::thread::Builder::new()
            .name("crisp-network".to_owned())
            .spawn(move || {
                while let Some(work) = waiting.blocking_recv() {
                    work(&mut engine);
                }
            })
            .map_err(|e| NetworkError::host("start", "the network thread", e))?;
        Ok(Self { queue })
    }

    /// Runs `act` on the thread. It is carried out to its end even if the caller goes away.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Engine) -> T + Send + 'static,
    ) -> Result<T, NetworkError> {
        let gone = || NetworkError::host("ask", "the network thread", std::io::ErrorKind::BrokenPipe);
        let (answer, wait) = oneshot::channel();
        let work: Work = Box::new(move |engine| {
            // The receiver has gone if the caller has.
            let _ = answer.send(act(engine));
        });
        self.queue.send(work).await.map_err(|_| gone())?;
        wait.await.map_err(|_| gone())
    }
}
