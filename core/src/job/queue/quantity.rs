//! Amounts of a resource in Kubernetes' notation, such as `64`, `500m` or `20Ti`.

use std::fmt;

use serde::{Deserialize, Deserializer, de};

/// The suffixes with their factors. The longer ones come first.
const SUFFIXES: [(&str, f64); 13] = [
    ("Ki", 1024.0),
    ("Mi", 1_048_576.0),
    ("Gi", 1_073_741_824.0),
    ("Ti", 1_099_511_627_776.0),
    ("Pi", 1_125_899_906_842_624.0),
    ("n", 1e-9),
    ("u", 1e-6),
    ("m", 1e-3),
    ("k", 1e3),
    ("M", 1e6),
    ("G", 1e9),
    ("T", 1e12),
    ("P", 1e15),
];

/// An amount of a resource. It is precise enough to compare amounts, not to account for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
pub(super) struct Amount(pub(super) f64);

impl Amount {
    /// Reads an amount.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let suffix = SUFFIXES
            .iter()
            .find_map(|(suffix, factor)| Some((text.strip_suffix(suffix)?, *factor)));
        let (digits, factor) = suffix.unwrap_or((text, 1.0));
        let number: f64 = digits.parse().ok()?;
        number.is_finite().then_some(Self(number * factor))
    }
}

impl std::ops::Add for Amount {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

impl std::iter::Sum for Amount {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::default(), |sum, amount| sum + amount)
    }
}

impl std::ops::Mul<u32> for Amount {
    type Output = Self;

    fn mul(self, times: u32) -> Self {
        Self(self.0 * f64::from(times))
    }
}

/// As Kubernetes writes it: the largest binary unit that leaves a whole number of a large amount.
impl fmt::Display for Amount {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut units = SUFFIXES[..5].iter().rev();
        let unit = units.find(|(_, factor)| self.0 >= *factor && self.0 % factor == 0.0);
        match unit {
            Some((suffix, factor)) => write!(formatter, "{}{suffix}", self.0 / factor),
            None => write!(formatter, "{}", self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(f64),
            Text(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Number(number) => Ok(Self(number)),
            Written::Text(text) => Self::parse(&text)
                .ok_or_else(|| de::Error::custom(format!("{text:?} is not a quantity"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_and_written_as_kubernetes_does() {
        for (text, value, written) in [
            ("40", 40.0, "40"),
            ("500m", 0.5, "0.5"),
            ("2k", 2000.0, "2000"),
            ("20Ti", 20.0 * 1_099_511_627_776.0, "20Ti"),
            ("1536Mi", 1536.0 * 1_048_576.0, "1536Mi"),
            ("1e3", 1000.0, "1000"),
            ("1024", 1024.0, "1Ki"),
        ] {
            let amount = Amount::parse(text).unwrap();
            assert_eq!(amount.0, value, "{text}");
            assert_eq!(amount.to_string(), written, "{text}");
        }
        for text in ["", "Gi", "many", "1 Gi", "inf", "NaN"] {
            assert_eq!(Amount::parse(text), None, "{text}");
        }
    }
}
