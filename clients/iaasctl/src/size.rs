//! Sizes and times as people type them. `G`, `GB` and `GiB` all mean 2^30 bytes: memory and disks come in nothing else here.

use std::time::Duration;

fn bytes(text: &str, bare_unit: u64) -> Result<u64, String> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: u64 = number.parse().map_err(|_| format!("`{text}` is not a size like 512MiB or 2GiB"))?;
    let unit = match unit.trim().to_ascii_lowercase().as_str() {
        "" => bare_unit,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        other => return Err(format!("`{other}` is not a unit: use MiB, GiB or TiB")),
    };
    number.checked_mul(unit).ok_or_else(|| format!("`{text}` is too large"))
}

/// Memory in MiB; a bare number is MiB.
pub fn parse_mib(text: &str) -> Result<u64, String> {
    Ok(bytes(text, 1 << 20)? >> 20)
}

/// Disk in GiB; a bare number is GiB. Less than a GiB is rounded up.
pub fn parse_gib(text: &str) -> Result<u64, String> {
    Ok(bytes(text, 1 << 30)?.div_ceil(1 << 30))
}

/// `90`, `90s`, `2m`, `1h`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let invalid = || format!("`{text}` is not a time like 90s or 2m");
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: u64 = number.parse().map_err(|_| invalid())?;
    let secs = match unit {
        "" | "s" => Some(number),
        "m" => number.checked_mul(60),
        "h" => number.checked_mul(3600),
        _ => None,
    };
    secs.map(Duration::from_secs).ok_or_else(invalid)
}

/// `key=value`.
pub fn parse_tag(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("`{text}` is not key=value"))?;
    if key.is_empty() {
        Err("the key of a tag must not be empty".to_owned())
    } else {
        Ok((key.to_owned(), value.to_owned()))
    }
}

/// Bits per second: `100M`, `1G`, `2500000`; 0 is no limit. Thousands, as networks count.
pub fn parse_rate(text: &str) -> Result<u64, String> {
    let invalid = || format!("`{text}` is not a rate like 100M or 1G (bits per second)");
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: u64 = number.parse().map_err(|_| invalid())?;
    let unit = match unit.to_ascii_lowercase().as_str() {
        "" => 1,
        "k" => 1_000,
        "m" => 1_000_000,
        "g" => 1_000_000_000,
        _ => return Err(invalid()),
    };
    number.checked_mul(unit).ok_or_else(invalid)
}

#[must_use]
pub fn show_rate(bps: u64) -> String {
    match bps {
        0 => "none".to_owned(),
        n if n.is_multiple_of(1_000_000_000) => format!("{} Gbit/s", n / 1_000_000_000),
        n if n.is_multiple_of(1_000_000) => format!("{} Mbit/s", n / 1_000_000),
        n if n.is_multiple_of(1_000) => format!("{} kbit/s", n / 1_000),
        n => format!("{n} bit/s"),
    }
}

#[must_use]
pub fn show_mib(mib: u64) -> String {
    if mib >= 1024 && mib.is_multiple_of(1024) { format!("{} GiB", mib / 1024) } else { format!("{mib} MiB") }
}

#[must_use]
pub fn show_bytes(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", units[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_take_units_and_refuse_the_rest() {
        assert_eq!(parse_mib("256MiB"), Ok(256));
        assert_eq!(parse_mib("256"), Ok(256));
        assert_eq!(parse_mib("2G"), Ok(2048));
        assert_eq!(parse_mib("1 gib"), Ok(1024));
        assert_eq!(parse_gib("1GiB"), Ok(1));
        assert_eq!(parse_gib("20"), Ok(20));
        assert_eq!(parse_gib("100MiB"), Ok(1));
        assert_eq!(parse_gib("1T"), Ok(1024));
        for bad in ["", "x", "1.5G", "-1", "1Q", "99999999999999999999", "99999999999T"] {
            assert!(parse_mib(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(parse_duration("120s"), Ok(Duration::from_secs(120)));
        assert!(parse_duration("soon").is_err() && parse_duration("1d").is_err());
        assert_eq!(parse_tag("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert!(parse_tag("a").is_err() && parse_tag("=b").is_err());
        assert_eq!(show_mib(1536), "1536 MiB");
        assert_eq!(show_bytes(9 << 20), "9.0 MiB");
        assert_eq!(
            (parse_rate("100M"), parse_rate("0"), parse_rate("1g")),
            (Ok(100_000_000), Ok(0), Ok(1_000_000_000))
        );
        assert!(parse_rate("fast").is_err() && parse_rate("1T").is_err() && parse_rate("").is_err());
        assert_eq!(
            (show_rate(0), show_rate(100_000_000), show_rate(1500)),
            ("none".into(), "100 Mbit/s".into(), "1500 bit/s".into())
        );
    }
}
