//! Finds the line in which a guest reports that it is up. Pure.
//!
//! The line is `iaas-guest: up <hostname> <seconds>`, possibly with a text of the init system in front. It comes from the guest and proves
//! nothing to anyone but the guest's owner: nothing but `guest_up_at` depends on it.

use crate::disk::config_drive::hostname_valid;

const MARK: &str = "iaas-guest: up ";
/// Longer lines are only read up to this length.
const LINE_MAX: usize = 1024;

/// What the guest reported.
#[derive(Debug, Clone, PartialEq)]
pub struct GuestUp {
    pub hostname: String,
    /// The time since its kernel started, by its own clock.
    pub uptime_seconds: f64,
}

/// Reads output as it comes, and reports the line once for each boot of the guest.
#[derive(Debug, Default)]
pub struct Scanner {
    line: Vec<u8>,
    reported: bool,
}

impl Scanner {
    /// Reports the next such line again.
    pub fn rearm(&mut self) {
        self.reported = false;
        self.line.clear();
    }

    /// Takes output, and returns the first such line of this boot if these bytes complete it.
    pub fn push(&mut self, bytes: &[u8]) -> Option<GuestUp> {
        let mut found = None;
        for &byte in bytes {
            if byte == b'\n' {
                if !self.reported {
                    found = parse_line(&self.line);
                    self.reported = found.is_some();
                }
                self.line.clear();
            } else if self.line.len() < LINE_MAX {
                self.line.push(byte);
            }
            if self.reported {
                break;
            }
        }
        found
    }
}

/// Parses one line without its line ending.
pub fn parse_line(line: &[u8]) -> Option<GuestUp> {
    let text = String::from_utf8_lossy(line);
    let (_, rest) = text.rsplit_once(MARK)?;
    let mut fields = rest.split_ascii_whitespace();
    let (hostname, seconds) = (fields.next()?, fields.next()?);
    let uptime_seconds: f64 = seconds.parse().ok()?;
    let sane = hostname_valid(hostname) && uptime_seconds.is_finite() && uptime_seconds >= 0.0;
    (sane && fields.next().is_none()).then(|| GuestUp { hostname: hostname.to_owned(), uptime_seconds })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &[u8] =
        b"[    1.2] boot\r\niaas-guest: up\r\n\xff\xfe\r\n[ 9.1] cloud-init[5]: iaas-guest: up web-1 12.5\r\nlogin: ";

    #[test]
    fn the_line_is_found_in_any_split_and_once_per_boot() {
        for step in 1..OUTPUT.len() {
            let mut scanner = Scanner::default();
            let mut scan = |output: &[u8]| output.chunks(step).filter_map(|c| scanner.push(c)).collect::<Vec<_>>();
            let up = GuestUp { hostname: "web-1".into(), uptime_seconds: 12.5 };
            assert_eq!(scan(OUTPUT), std::slice::from_ref(&up));
            assert!(scan(OUTPUT).is_empty(), "the same boot");
            scanner.rearm();
            assert_eq!(OUTPUT.chunks(step).filter_map(|c| scanner.push(c)).collect::<Vec<_>>(), [up]);
        }
    }

    #[test]
    fn lines_that_only_look_like_it_are_none() {
        let lines = [
            "iaas-guest: up",
            "iaas-guest: up web",
            "iaas-guest: up web soon",
            "iaas-guest: up web -1",
            "iaas-guest: up web inf",
            "iaas-guest: up we$b 1",
            "iaas-guest: up web 1 2",
            "iaas-guest: down web 1",
        ];
        for line in lines {
            assert_eq!(parse_line(line.as_bytes()), None, "{line}");
        }
        let mut scanner = Scanner::default();
        assert_eq!(scanner.push(&vec![b'x'; 1 << 20]), None);
        assert!(scanner.line.len() <= LINE_MAX);
        assert!(scanner.push(b"\niaas-guest: up a 1\n").is_some());
    }
}
