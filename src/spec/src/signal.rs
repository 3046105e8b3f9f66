//! Signals by name, as images spell their stop signal.

use crisp_model::{ContainerConfig, image::ImageConfig};

use crate::error::SpecError;

/// Signal numbers that are the same on x86-64 and arm64 (`signal(7)`).
const NAMES: [(&str, i32); 33] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("POLL", 29),
    ("PWR", 30),
    ("SYS", 31),
];
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

fn parse(text: &str) -> Option<i32> {
    let text = text.trim().to_ascii_uppercase();
    if let Ok(number) = text.parse::<i32>() {
        return (1..=RTMAX).contains(&number).then_some(number);
    }
    let name = text.strip_prefix("SIG").unwrap_or(&text);
    let (base, offset) = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(rest), _) => (RTMIN, rest),
        (_, Some(rest)) => (RTMAX, rest),
        _ => return NAMES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number),
    };
    let offset = if offset.is_empty() { 0 } else { offset.parse::<i32>().ok()? };
    base.checked_add(offset).filter(|number| (RTMIN..=RTMAX).contains(number))
}

/// The signal that StopContainer sends first: the request's, the image's, SIGTERM.
pub fn stop_signal(config: &ContainerConfig, image: &ImageConfig) -> Result<i32, SpecError> {
    if let Some(signal) = config.stop_signal {
        if (1..=RTMAX).contains(&signal) {
            return Ok(signal);
        }
        return Err(SpecError::invalid("config.stop_signal", format!("{signal} is not a signal")));
    }
    match image.stop_signal.as_str() {
        "" => Ok(15),
        text => parse(text).ok_or_else(|| {
            SpecError::invalid(
                "image.config.StopSignal",
                format!("{text:?} is neither a signal's name nor number"),
            )
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for (text, number) in [
            ("SIGTERM", Some(15)),
            ("term", Some(15)),
            ("9", Some(9)),
            ("SIGRTMIN+3", Some(37)),
            ("RTMAX-1", Some(63)),
            ("SIGRTMIN", Some(34)),
            ("SIGRTMIN+31", None),
            ("0", None),
            ("65", None),
            ("SIGFLY", None),
        ] {
            assert_eq!(parse(text), number, "{text}");
        }
    }

    #[test]
    fn the_request_wins() {
        let image = ImageConfig { stop_signal: "SIGQUIT".into(), ..Default::default() };
        let config = ContainerConfig { stop_signal: Some(10), ..Default::default() };
        assert_eq!(stop_signal(&config, &image), Ok(10));
        assert_eq!(stop_signal(&ContainerConfig::default(), &image), Ok(3));
        assert_eq!(stop_signal(&ContainerConfig::default(), &ImageConfig::default()), Ok(15));
        let bad = ImageConfig { stop_signal: "x".into(), ..Default::default() };
        assert_eq!(
            stop_signal(&ContainerConfig::default(), &bad).unwrap_err().field(),
            "image.config.StopSignal"
        );
    }
}
