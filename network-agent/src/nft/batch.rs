//! A difference of elements and limits as one nf_tables transaction over netlink. Pure: from changes to bytes.
//!
//! The problem: a port is a handful of elements, and an `nft` process for them costs 5 ms of start, parsing and asking the kernel
//! for what it holds, a hundred times what the transaction costs. An `nft -i` that stays was rejected: it keeps a cache of its own
//! that others' changes make stale, its answers are prose, and a process per namespace must be watched and replaced; linking
//! libnftables has the same cache and takes C along. Elements and named limits are plain attributes that have been the kernel's
//! interface since 4.x; rules are a compiler's work, so tables, chains and rules stay with `nft -f`.
//!
//! Invariants: all or nothing (the kernel's batch); and nothing at all if anybody changed the rules since we last did: the batch
//! names the generation that it was made for, and the kernel refuses it at another. So the audit never mistakes a stranger's change
//! for ours.

use super::{
    difference::Change,
    element::{Element, Field, Value},
    ruleset::{Limit, Table},
};
use std::net::IpAddr;

/// Of a kernel message, with what it says in attributes.
pub(super) mod number {
    pub const BATCH_BEGIN: u16 = 0x10;
    pub const BATCH_END: u16 = 0x11;
    pub const SUBSYSTEM: u16 = 10;
    pub const NEW_ELEMENT: u16 = (SUBSYSTEM << 8) | 12;
    pub const DELETE_ELEMENT: u16 = (SUBSYSTEM << 8) | 14;
    pub const NEW_OBJECT: u16 = (SUBSYSTEM << 8) | 18;
    pub const DELETE_OBJECT: u16 = (SUBSYSTEM << 8) | 20;

    pub const REQUEST: u16 = 1;
    pub const ACK: u16 = 4;
    pub const CREATE: u16 = 0x400;

    pub const FAMILY_INET: u8 = 1;
    pub const FAMILY_ARP: u8 = 3;

    pub const NESTED: u16 = 0x8000;
    pub const BATCH_GENERATION: u16 = 1;
    pub const LIST_TABLE: u16 = 1;
    pub const LIST_SET: u16 = 2;
    pub const LIST_ELEMENTS: u16 = 3;
    pub const LIST_ITEM: u16 = 1;
    pub const ELEMENT_KEY: u16 = 1;
    pub const ELEMENT_DATA: u16 = 2;
    pub const ELEMENT_OBJECT: u16 = 9;
    pub const ELEMENT_KEY_END: u16 = 10;
    pub const DATA_VALUE: u16 = 1;
    pub const DATA_VERDICT: u16 = 2;
    pub const VERDICT_CODE: u16 = 1;
    pub const VERDICT_CHAIN: u16 = 2;
    pub const VERDICT_JUMP: i32 = -3;
    pub const OBJECT_TABLE: u16 = 1;
    pub const OBJECT_NAME: u16 = 2;
    pub const OBJECT_TYPE: u16 = 3;
    pub const OBJECT_DATA: u16 = 4;
    pub const OBJECT_LIMIT: u32 = 4;
    pub const LIMIT_RATE: u16 = 1;
    pub const LIMIT_UNIT: u16 = 2;
    pub const LIMIT_BURST: u16 = 3;
    pub const LIMIT_TYPE: u16 = 4;
    pub const LIMIT_FLAGS: u16 = 5;
    pub const LIMIT_BYTES: u32 = 1;
    pub const LIMIT_OVER: u32 = 1;
}

/// The name of our table in each family.
const TABLE: &str = "iaas";
/// Elements per message: its list is one attribute, of at most 64 KiB.
const PER_MESSAGE: usize = 256;
/// What a batch may hold; more is a rewrite, where an `nft` process is small change.
const ELEMENTS_MAX: usize = 8192;
/// Of an interface's name, as the kernel compares it.
const IFNAME_BYTES: usize = 16;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    pub bytes: Vec<u8>,
    /// The sequence number of the message that the kernel acknowledges when all is done.
    pub last: u32,
}

/// The transaction for `changes`, to be taken at `generation` alone; None if some of them need `nft -f`.
#[must_use]
pub fn encode(changes: &[Change], generation: u32) -> Option<Batch> {
    let mut batch = Encoder::begin(Some(generation));
    let mut elements_left = ELEMENTS_MAX;
    for change in changes {
        match change {
            Change::AddElements { table, set, elements } | Change::DeleteElements { table, set, elements } => {
                elements_left = elements_left.checked_sub(elements.len())?;
                let add = matches!(change, Change::AddElements { .. });
                for some in elements.chunks(PER_MESSAGE) {
                    batch.elements(add, *table, set, some)?;
                }
            }
            Change::AddLimit { name, limit } => batch.add_limit(name, *limit),
            Change::DeleteLimit { name } => batch.delete_limit(name),
            Change::Declare { .. }
            | Change::AddChain { .. }
            | Change::FlushChain { .. }
            | Change::AddRules { .. }
            | Change::DeleteChain { .. }
            | Change::DeleteSet { .. } => return None,
        }
    }
    batch.finish()
}

pub(super) struct Encoder {
    bytes: Vec<u8>,
    sequence: u32,
    /// Where the last message that isn't an edge begins.
    last: usize,
}

impl Encoder {
    /// `generation`: the one that the batch is made for, if it matters.
    pub(super) fn begin(generation: Option<u32>) -> Self {
        let mut batch = Self { bytes: Vec::with_capacity(4096), sequence: 0, last: 0 };
        batch.edge(number::BATCH_BEGIN, |out| {
            if let Some(generation) = generation {
                attribute(out, number::BATCH_GENERATION, &generation.to_be_bytes());
            }
        });
        batch
    }

    /// One of the batch's own messages; `kind` is nf_tables' number.
    pub(super) fn inet(&mut self, kind: u16, flags: u16, body: impl FnOnce(&mut Vec<u8>)) {
        self.last = self.bytes.len();
        self.message((number::SUBSYSTEM << 8) | kind, flags, number::FAMILY_INET, 0, body);
    }

    /// A message: netlink's header, nfnetlink's, attributes.
    fn message(&mut self, kind: u16, flags: u16, family: u8, resource: u16, body: impl FnOnce(&mut Vec<u8>)) {
        self.sequence += 1;
        let at = self.bytes.len();
        self.bytes.extend([0; 4]);
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((number::REQUEST | flags).to_ne_bytes());
        self.bytes.extend(self.sequence.to_ne_bytes());
        self.bytes.extend([0; 4]);
        self.bytes.extend([family, 0]);
        self.bytes.extend(resource.to_be_bytes());
        body(&mut self.bytes);
        let length = (self.bytes.len() - at) as u32;
        self.bytes[at..at + 4].copy_from_slice(&length.to_ne_bytes());
    }

    fn edge(&mut self, kind: u16, body: impl FnOnce(&mut Vec<u8>)) {
        self.message(kind, 0, 0, number::SUBSYSTEM, body);
    }

    fn elements(&mut self, add: bool, table: Table, set: &str, elements: &[Element]) -> Option<()> {
        let (kind, flags) = if add { (number::NEW_ELEMENT, number::CREATE) } else { (number::DELETE_ELEMENT, 0) };
        let family = match table {
            Table::Inet => number::FAMILY_INET,
            Table::Arp => number::FAMILY_ARP,
        };
        let encoded: Vec<Vec<u8>> = elements.iter().map(element).collect::<Option<_>>()?;
        self.last = self.bytes.len();
        self.message(kind, flags, family, 0, |out| {
            text(out, number::LIST_TABLE, TABLE);
            text(out, number::LIST_SET, set);
            nested(out, number::LIST_ELEMENTS, |out| {
                for element in &encoded {
                    attribute(out, number::LIST_ITEM | number::NESTED, element);
                }
            });
        });
        Some(())
    }

    fn add_limit(&mut self, name: &str, limit: Limit) {
        self.last = self.bytes.len();
        self.message(number::NEW_OBJECT, number::CREATE, number::FAMILY_INET, 0, |out| {
            text(out, number::OBJECT_TABLE, TABLE);
            text(out, number::OBJECT_NAME, name);
            attribute(out, number::OBJECT_TYPE, &number::OBJECT_LIMIT.to_be_bytes());
            nested(out, number::OBJECT_DATA, |out| {
                attribute(out, number::LIMIT_RATE, &limit.bytes_per_sec.to_be_bytes());
                attribute(out, number::LIMIT_UNIT, &1u64.to_be_bytes());
                attribute(out, number::LIMIT_BURST, &limit.burst_bytes.to_be_bytes());
                attribute(out, number::LIMIT_TYPE, &number::LIMIT_BYTES.to_be_bytes());
                attribute(out, number::LIMIT_FLAGS, &number::LIMIT_OVER.to_be_bytes());
            });
        });
    }

    fn delete_limit(&mut self, name: &str) {
        self.last = self.bytes.len();
        self.message(number::DELETE_OBJECT, 0, number::FAMILY_INET, 0, |out| {
            text(out, number::OBJECT_TABLE, TABLE);
            text(out, number::OBJECT_NAME, name);
            attribute(out, number::OBJECT_TYPE, &number::OBJECT_LIMIT.to_be_bytes());
        });
    }

    /// None for a batch of nothing.
    pub(super) fn finish(mut self) -> Option<Batch> {
        if self.last == 0 {
            return None;
        }
        let last = self.sequence;
        let flags = u16::from_ne_bytes([self.bytes[self.last + 6], self.bytes[self.last + 7]]) | number::ACK;
        self.bytes[self.last + 6..self.last + 8].copy_from_slice(&flags.to_ne_bytes());
        self.edge(number::BATCH_END, |_| {});
        Some(Batch { bytes: self.bytes, last })
    }
}

/// Of one element; None for an interval of a plain set, which the kernel keeps as two elements.
fn element(element: &Element) -> Option<Vec<u8>> {
    let concatenated = element.key.len() > 1;
    let interval = element.key.iter().any(|field| matches!(field, Field::Block(_)));
    if interval && !concatenated {
        return None;
    }
    let mut out = Vec::with_capacity(96);
    let key = |last: bool| {
        let mut bytes = Vec::with_capacity(40);
        for field in &element.key {
            field_bytes(&mut bytes, field, last);
            if concatenated {
                // Each part fills whole registers.
                bytes.resize(bytes.len().next_multiple_of(4), 0);
            }
        }
        bytes
    };
    nested(&mut out, number::ELEMENT_KEY, |out| attribute(out, number::DATA_VALUE, &key(false)));
    if interval {
        nested(&mut out, number::ELEMENT_KEY_END, |out| attribute(out, number::DATA_VALUE, &key(true)));
    }
    match &element.value {
        None => {}
        Some(Value::Addr(addr)) => nested(&mut out, number::ELEMENT_DATA, |out| {
            let mut bytes = Vec::with_capacity(16);
            addr_bytes(&mut bytes, *addr);
            attribute(out, number::DATA_VALUE, &bytes);
        }),
        Some(Value::Jump(chain)) => nested(&mut out, number::ELEMENT_DATA, |out| {
            nested(out, number::DATA_VERDICT, |out| {
                attribute(out, number::VERDICT_CODE, &number::VERDICT_JUMP.to_be_bytes());
                text(out, number::VERDICT_CHAIN, chain);
            });
        }),
        Some(Value::Limit(name)) => text(&mut out, number::ELEMENT_OBJECT, name),
    }
    Some(out)
}

/// `last`: of an interval's two ends, the upper.
fn field_bytes(out: &mut Vec<u8>, field: &Field, last: bool) {
    match field {
        Field::Link(name) => {
            let at = out.len();
            out.extend(name.bytes().take(IFNAME_BYTES - 1));
            out.resize(at + IFNAME_BYTES, 0);
        }
        Field::Mac(mac) => out.extend(mac.0),
        Field::Addr(addr) => addr_bytes(out, *addr),
        Field::Block(block) => addr_bytes(out, if last { block.last() } else { block.addr() }),
    }
}

fn addr_bytes(out: &mut Vec<u8>, addr: IpAddr) {
    match addr {
        IpAddr::V4(addr) => out.extend(addr.octets()),
        IpAddr::V6(addr) => out.extend(addr.octets()),
    }
}

pub(super) fn attribute(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    out.extend(((4 + value.len()) as u16).to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend(value);
    out.resize(out.len().next_multiple_of(4), 0);
}

/// A string with its zero.
pub(super) fn text(out: &mut Vec<u8>, kind: u16, value: &str) {
    attribute(out, kind, &[value.as_bytes(), &[0]].concat());
}

pub(super) fn nested(out: &mut Vec<u8>, kind: u16, body: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend([0; 2]);
    out.extend((kind | number::NESTED).to_ne_bytes());
    body(out);
    let length = (out.len() - at) as u16;
    out[at..at + 2].copy_from_slice(&length.to_ne_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::network::MacAddr;

    fn add(elements: Vec<Element>) -> Change {
        Change::AddElements { table: Table::Inet, set: "guard4".into(), elements }
    }

    #[test]
    fn lengths_add_up_and_the_last_message_is_acknowledged() {
        let sender = [Field::Link("t1".into()), Field::Mac(MacAddr([2, 0, 0, 0, 0, 1]))];
        let elements = vec![Element::key(sender); 300];
        let Batch { bytes, last } = encode(&[add(elements)], 7).expect("a batch");
        let (mut at, mut found) = (0, Vec::new());
        while at < bytes.len() {
            let length = u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("4")) as usize;
            let kind = u16::from_ne_bytes([bytes[at + 4], bytes[at + 5]]);
            let flags = u16::from_ne_bytes([bytes[at + 6], bytes[at + 7]]);
            let sequence = u32::from_ne_bytes(bytes[at + 8..at + 12].try_into().expect("4"));
            assert!(length >= 20 && length.is_multiple_of(4) && at + length <= bytes.len());
            found.push((kind, flags & number::ACK != 0, sequence));
            at += length;
        }
        let element = number::NEW_ELEMENT;
        assert_eq!(found, [(16, false, 1), (element, false, 2), (element, true, 3), (17, false, 4)]);
        assert_eq!(last, 3);
        assert_eq!(bytes[20..28], [8, 0, 1, 0, 0, 0, 0, 7], "the generation");
    }

    #[test]
    fn what_is_no_element_is_left_to_nft() {
        assert_eq!(encode(&[], 1), None);
        assert_eq!(encode(&[Change::FlushChain { name: "c".into() }], 1), None);
        let block = Element::key([Field::Block("10.0.0.0/8".parse().expect("cidr"))]);
        assert_eq!(encode(&[add(vec![block])], 1), None, "an interval of a plain set");
        assert_eq!(encode(&[add(vec![Element::key([]); ELEMENTS_MAX + 1])], 1), None);
    }
}
