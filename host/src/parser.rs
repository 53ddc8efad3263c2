//! Values of the command line and of environment variables, refused in words that say what would be
//! right.

use std::net::SocketAddr;
use std::ops::RangeInclusive;

/// A parser of whole numbers of a range.
pub fn whole<T: TryFrom<u64>>(
    range: RangeInclusive<u64>,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync {
    move |text| {
        let number = text.parse::<u64>().ok();
        number
            .filter(|number| range.contains(number))
            .and_then(|number| T::try_from(number).ok())
            .ok_or_else(|| {
                let (least, most) = (range.start(), range.end());
                format!("it takes a whole number from {least} to {most}")
            })
    }
}

/// A whole number of 32 bits, 0 among them.
pub fn any_u32(text: &str) -> Result<u32, String> {
    whole(0..=u64::from(u32::MAX))(text)
}

/// A whole number of 32 bits that is not 0.
pub fn positive_u32(text: &str) -> Result<u32, String> {
    whole(1..=u64::from(u32::MAX))(text)
}

/// A number of seconds or milliseconds, within the range of the clock.
pub fn duration(text: &str) -> Result<u64, String> {
    whole(0..=u64::from(u32::MAX))(text)
}

/// Lines or jobs; the largest number that every reader of JSON has.
pub fn count<T: TryFrom<u64>>(text: &str) -> Result<T, String> {
    whole(0..=(1 << 53) - 1)(text)
}

/// An address to listen on.
pub fn listen_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        "it takes an IP address and a port, such as 127.0.0.1:8080 or [::1]:8080".to_string()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_outside_of_its_range_is_told_with_the_range() {
        assert_eq!(positive_u32("1"), Ok(1));
        let right = Err("it takes a whole number from 1 to 4294967295".to_string());
        for text in [
            "0",
            "-1",
            "1.5",
            "x",
            "",
            "4294967296",
            "99999999999999999999",
        ] {
            assert_eq!(positive_u32(text), right, "{text}");
        }
    }

    #[test]
    fn an_address_has_a_port() {
        assert!(listen_address("127.0.0.1:80").is_ok());
        for text in ["127.0.0.1", "localhost:80", ":80", ""] {
            assert!(listen_address(text).unwrap_err().contains("127.0.0.1:8080"));
        }
    }
}
