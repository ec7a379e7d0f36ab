//! The flows that the kernel tracks in a namespace: all of them, and the end of single ones.

use super::nfnetlink::Nfnetlink;
use crate::model::flow::Flow;
use nix::errno::Errno;
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

const SUBSYSTEM: u16 = 1 << 8;
const GET: u16 = SUBSYSTEM | 1;
const DELETE: u16 = SUBSYSTEM | 2;
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const DUMP: u16 = 0x300;
/// Of an attribute's number: it holds attributes.
const NUMBER: u16 = 0x3fff;

mod attribute {
    pub const TUPLE_ORIGINAL: u16 = 1;
    pub const TUPLE_REPLY: u16 = 2;
    pub const ID: u16 = 12;
    pub const IP: u16 = 1;
    pub const PROTOCOL: u16 = 2;
    pub const V4_FROM: u16 = 1;
    pub const V4_TO: u16 = 2;
    pub const V6_FROM: u16 = 3;
    pub const V6_TO: u16 = 4;
    pub const NUMBER: u16 = 1;
    pub const FROM_PORT: u16 = 2;
    pub const TO_PORT: u16 = 3;
    pub const ICMP_TYPE: u16 = 5;
    pub const ICMP_CODE: u16 = 6;
    pub const ICMP6_TYPE: u16 = 8;
    pub const ICMP6_CODE: u16 = 9;
}

/// A flow as the kernel has it, with what names it there.
#[derive(Debug, Clone)]
struct Tracked {
    flow: Flow,
    family: u8,
    /// The original tuple and the number, as attributes.
    name: Vec<u8>,
}

/// Ends the flows that aren't `allowed`; how many there were. The next packet of one is judged as if it were the first; one of TCP that
/// isn't a first one is judged as belonging to nothing.
pub fn end_flows(socket: &mut Nfnetlink, allowed: impl Fn(&Flow) -> bool) -> io::Result<usize> {
    let mut over = Vec::new();
    socket.exchange(&message(GET, DUMP, 0, &[]), |kind, body| {
        if kind & 0xff == 0
            && kind & 0xff00 == SUBSYSTEM
            && let Some(tracked) = parse(body)
            && !allowed(&tracked.flow)
        {
            over.push(tracked);
        }
    })?;
    for Tracked { family, name, .. } in &over {
        match socket.exchange(&message(DELETE, ACK, *family, name), |_, _| {}) {
            // It ended by itself.
            Err(e) if e.raw_os_error() == Some(Errno::ENOENT as i32) => {}
            ended => ended?,
        }
    }
    Ok(over.len())
}

fn message(kind: u16, flags: u16, family: u8, attributes: &[u8]) -> Vec<u8> {
    let length = (20 + attributes.len()) as u32;
    let head = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &(REQUEST | flags).to_ne_bytes(), &[0; 8]].concat();
    [&head[..], &[family, 0, 0, 0], attributes].concat()
}

/// (number, value) of each attribute.
fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(rest.get(..2)?.try_into().ok()?));
        let number = u16::from_ne_bytes(rest.get(2..4)?.try_into().ok()?) & NUMBER;
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((number, value))
    })
}

fn find(bytes: &[u8], number: u16) -> Option<&[u8]> {
    attributes(bytes).find_map(|(found, value)| (found == number).then_some(value))
}

/// The body begins with nfgenmsg, whose first byte is the family.
fn parse(body: &[u8]) -> Option<Tracked> {
    let (family, rest) = (*body.first()?, body.get(4..)?);
    let (original, reply) = (find(rest, attribute::TUPLE_ORIGINAL)?, find(rest, attribute::TUPLE_REPLY)?);
    let (from, to) = ends(find(original, attribute::IP)?)?;
    let (answered_by, answered_to) = ends(find(reply, attribute::IP)?)?;
    let (sent, answered) = (find(original, attribute::PROTOCOL)?, find(reply, attribute::PROTOCOL)?);
    let byte = |bytes: &[u8], number| find(bytes, number)?.first().copied();
    let port = |bytes: &[u8], number| Some(u16::from_be_bytes(find(bytes, number)?.try_into().ok()?));
    let (kind, code) = if from.is_ipv4() {
        (attribute::ICMP_TYPE, attribute::ICMP_CODE)
    } else {
        (attribute::ICMP6_TYPE, attribute::ICMP6_CODE)
    };
    let flow = Flow {
        protocol: byte(sent, attribute::NUMBER)?,
        from,
        to,
        answered_by,
        answered_to,
        // Where it went after translation is where answers come from.
        to_port: port(sent, attribute::TO_PORT).and(port(answered, attribute::FROM_PORT)),
        icmp: byte(sent, kind).zip(byte(sent, code)),
    };
    let mut name = Vec::with_capacity(96);
    put(&mut name, attribute::TUPLE_ORIGINAL | 0x8000, original);
    if let Some(id) = find(rest, attribute::ID) {
        put(&mut name, attribute::ID, id);
    }
    Some(Tracked { flow, family, name })
}

fn ends(ip: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let v4 = |number| Some(IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(find(ip, number)?).ok()?)));
    let v6 = |number| Some(IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(find(ip, number)?).ok()?)));
    v4(attribute::V4_FROM).zip(v4(attribute::V4_TO)).or_else(|| v6(attribute::V6_FROM).zip(v6(attribute::V6_TO)))
}

fn put(out: &mut Vec<u8>, number: u16, value: &[u8]) {
    out.extend(((4 + value.len()) as u16).to_ne_bytes());
    out.extend(number.to_ne_bytes());
    out.extend(value);
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_translated_flow_is_read_and_what_is_cut_off_is_none() {
        let tuple = |number: u16, from: [u8; 4], to: [u8; 4], ports: [u16; 2]| {
            let (mut ip, mut protocol, mut out) = (Vec::new(), Vec::new(), Vec::new());
            put(&mut ip, 1, &from);
            put(&mut ip, 2, &to);
            put(&mut protocol, 1, &[6]);
            put(&mut protocol, 2, &ports[0].to_be_bytes());
            put(&mut protocol, 3, &ports[1].to_be_bytes());
            let mut inner = Vec::new();
            put(&mut inner, 1 | 0x8000, &ip);
            put(&mut inner, 2 | 0x8000, &protocol);
            put(&mut out, number | 0x8000, &inner);
            out
        };
        let (outer, floating, inner) = ([203, 0, 113, 1], [203, 0, 113, 50], [10, 0, 0, 5]);
        let mut body = vec![2, 0, 0, 0];
        body.extend(tuple(1, outer, floating, [40000, 22]));
        body.extend(tuple(2, inner, outer, [22, 40000]));
        put(&mut body, 12, &[0, 0, 0, 9]);
        let Tracked { flow, family, .. } = parse(&body).expect("read");
        assert_eq!((flow.from, flow.to), (outer.into(), floating.into()));
        assert_eq!((flow.answered_by, flow.answered_to), (inner.into(), outer.into()));
        assert_eq!((flow.protocol, flow.to_port, flow.icmp, family), (6, Some(22), None, 2));
        for cut in 0..tuple(1, outer, floating, [1, 2]).len() {
            assert!(parse(&body[..cut]).is_none());
        }
    }
}
