//! What stays closed when somebody flushes the rules: a table that nobody else can flush, and that lets pass only what our chains saw.
//!
//! The problem: whoever runs `nft flush ruleset` in a network's namespace removes every check, and the kernel goes on routing. Being told
//! of it and writing the rules anew takes a moment, in which everything passes. Turning forwarding off first isn't possible: nobody asks us
//! before.
//!
//! So each of our chains that decides marks what it saw, and counts on the mark of the one before; a table of its own drops what doesn't
//! have the last mark. That table has an owner (`NFT_TABLE_F_OWNER`), so the kernel refuses everybody else's changes and leaves it out of
//! a flush; it persists without one (`NFT_TABLE_F_PERSIST`, Linux 6.9), so it outlives the agent, and the next agent owns it again. Without
//! an owner, only a command that names it removes it. The marks live as long as a packet is in its namespace.
//!
//! It is written by netlink alone, since nft before 1.1 has no word for it, and never changes: where it is, it is left.

use super::batch::{Batch, Encoder, attribute, nested, number, text};

const TABLE: &str = "iaas_fence";
/// The chain `guard` saw it.
pub const GUARDED: u32 = 0x1aa5_0001;
/// The chain `egress` saw it after that one.
pub const LEFT: u32 = 0x1aa5_0002;
/// The chain `ingress` saw it after those: the last before a packet goes on.
pub const FORWARDED: u32 = 0x1aa5_0003;
/// The chain `own` saw it, which is for the router itself.
pub const TAKEN: u32 = 0x1aa5_0004;

const GET_TABLE: u16 = 1;
const NEW_TABLE: u16 = 0;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;
const APPEND: u16 = 0x800;
/// The attribute of a table's flags.
pub const TABLE_FLAGS: u16 = 2;
const OWNER: u32 = 2;
const PERSIST: u32 = 4;
const HOOK_INPUT: u32 = 1;
const HOOK_FORWARD: u32 = 2;
/// After our chains and those that count what they refuse.
const PRIORITY: i32 = 10;
const REGISTER: u32 = 1;
const META_MARK: u32 = 3;
const NOT_EQUAL: u32 = 1;

/// Whether the table is there.
#[must_use]
pub fn query() -> Vec<u8> {
    let mut out = vec![0; 4];
    out.extend(((number::SUBSYSTEM << 8) | GET_TABLE).to_ne_bytes());
    out.extend(number::REQUEST.to_ne_bytes());
    out.extend([0; 8]);
    out.extend([number::FAMILY_INET, 0, 0, 0]);
    text(&mut out, 1, TABLE);
    let length = out.len() as u32;
    out[..4].copy_from_slice(&length.to_ne_bytes());
    out
}

/// Whether a table with those flags has an owner. One that an agent left behind is nobody's.
#[must_use]
pub fn owned(flags: &[u8]) -> bool {
    flags.try_into().is_ok_and(|flags| u32::from_be_bytes(flags) & OWNER != 0)
}

/// The transaction that makes a table that is nobody's ours.
#[must_use]
pub fn encode_claim() -> Batch {
    let mut batch = Encoder::begin(None);
    own_table(&mut batch);
    finish(batch)
}

fn own_table(batch: &mut Encoder) {
    batch.inet(NEW_TABLE, number::CREATE, |out| {
        text(out, 1, TABLE);
        attribute(out, TABLE_FLAGS, &(OWNER | PERSIST).to_be_bytes());
    });
}

fn finish(batch: Encoder) -> Batch {
    batch.finish().unwrap_or_else(|| Batch { bytes: Vec::new(), last: 0 })
}

/// The transaction that makes it.
#[must_use]
pub fn encode() -> Batch {
    let mut batch = Encoder::begin(None);
    own_table(&mut batch);
    for (name, hook, mark) in [("forward", HOOK_FORWARD, FORWARDED), ("input", HOOK_INPUT, TAKEN)] {
        batch.inet(NEW_CHAIN, number::CREATE, |out| {
            text(out, 1, TABLE);
            text(out, 3, name);
            nested(out, 4, |out| {
                attribute(out, 1, &hook.to_be_bytes());
                attribute(out, 2, &PRIORITY.to_be_bytes());
            });
            text(out, 7, "filter");
        });
        batch.inet(NEW_RULE, number::CREATE | APPEND, |out| {
            text(out, 1, TABLE);
            text(out, 2, name);
            nested(out, 4, |out| {
                expression(out, "meta", |out| {
                    attribute(out, 1, &REGISTER.to_be_bytes());
                    attribute(out, 2, &META_MARK.to_be_bytes());
                });
                expression(out, "cmp", |out| {
                    attribute(out, 1, &REGISTER.to_be_bytes());
                    attribute(out, 2, &NOT_EQUAL.to_be_bytes());
                    nested(out, 3, |out| attribute(out, 1, &mark.to_ne_bytes()));
                });
                expression(out, "counter", |_| {});
                // Register and code are both 0: the verdict, and to drop.
                expression(out, "immediate", |out| {
                    attribute(out, 1, &[0; 4]);
                    nested(out, 2, |out| nested(out, 2, |out| attribute(out, 1, &[0; 4])));
                });
            });
        });
    }
    finish(batch)
}

fn expression(out: &mut Vec<u8>, name: &str, data: impl FnOnce(&mut Vec<u8>)) {
    nested(out, 1, |out| {
        text(out, 1, name);
        nested(out, 2, data);
    });
}
