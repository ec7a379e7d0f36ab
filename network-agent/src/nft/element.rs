//! Elements of sets and maps, typed: they are written as text (`nft -f`) and as netlink attributes ([`super::batch`]), and both must
//! say the same.

use domain::network::{Cidr, MacAddr};
use std::{
    fmt::{self, Display, Formatter},
    net::IpAddr,
};

/// A part of a key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Field {
    Link(String),
    Mac(MacAddr),
    Addr(IpAddr),
    /// A whole block, which only sets with intervals hold.
    Block(Cidr),
}

/// What a map's key leads to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    Jump(String),
    Limit(String),
    Addr(IpAddr),
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Element {
    pub key: Vec<Field>,
    pub value: Option<Value>,
}

impl Element {
    #[must_use]
    pub fn key(key: impl Into<Vec<Field>>) -> Self {
        Self { key: key.into(), value: None }
    }

    #[must_use]
    pub fn entry(key: Field, value: Value) -> Self {
        Self { key: vec![key], value: Some(value) }
    }
}

impl Display for Field {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link(name) => write!(f, "\"{name}\""),
            Self::Mac(mac) => mac.fmt(f),
            Self::Addr(addr) => addr.fmt(f),
            // As nft lists it: a block of one address without its prefix length.
            Self::Block(block) if *block == Cidr::host(block.addr()) => block.addr().fmt(f),
            Self::Block(block) => block.fmt(f),
        }
    }
}

impl Display for Element {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (at, field) in self.key.iter().enumerate() {
            write!(f, "{}{field}", if at == 0 { "" } else { " . " })?;
        }
        match &self.value {
            None => Ok(()),
            Some(Value::Jump(chain)) => write!(f, " : jump {chain}"),
            Some(Value::Limit(name)) => write!(f, " : \"{name}\""),
            Some(Value::Addr(addr)) => write!(f, " : {addr}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_read_as_nft_writes_them() {
        let link = || Field::Link("t1".into());
        let mac = Field::Mac(MacAddr([2, 0, 0, 0, 0, 1]));
        let block = |text: &str| Field::Block(text.parse().expect("cidr"));
        assert_eq!(
            Element::key([link(), mac.clone(), block("10.0.0.0/8")]).to_string(),
            "\"t1\" . 02:00:00:00:00:01 . 10.0.0.0/8"
        );
        assert_eq!(
            Element::key([link(), mac, block("10.0.0.5/32")]).to_string(),
            "\"t1\" . 02:00:00:00:00:01 . 10.0.0.5"
        );
        assert_eq!(Element::entry(link(), Value::Jump("c".into())).to_string(), "\"t1\" : jump c");
        assert_eq!(Element::entry(link(), Value::Limit("l".into())).to_string(), "\"t1\" : \"l\"");
    }
}
