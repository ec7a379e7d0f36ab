//! Counters of what was dropped, by port and reason, out of the table that no replacement touches.

use crate::{
    apply::rules,
    link::netns::{NetnsError, Worker},
    nft::DropReason,
};
use serde_json::Value;
use std::{collections::BTreeMap, io};

/// Packets dropped since the namespace was made, by the port's link and the reason.
pub async fn read(inside: &Worker) -> Result<io::Result<BTreeMap<(String, DropReason), u64>>, NetnsError> {
    inside
        .run(|_| {
            let mut drops = BTreeMap::new();
            for family in ["inet", "arp"] {
                let text = rules::run_nft(&["-j", "list", "table", family, "iaas_drops"])?;
                let listed: Value = serde_json::from_str(&text).map_err(io::Error::other)?;
                for (key, packets) in parse(&listed) {
                    *drops.entry(key).or_default() += packets;
                }
            }
            Ok(drops)
        })
        .await
}

fn parse(listed: &Value) -> Vec<((String, DropReason), u64)> {
    let objects = listed["nftables"].as_array().into_iter().flatten();
    let elements = objects.filter_map(|object| object["set"]["elem"].as_array()).flatten();
    elements
        .filter_map(|element| {
            let element = &element["elem"];
            let key = element["val"]["concat"].as_array()?;
            let link = key.first()?.as_str()?.to_owned();
            let reason = DropReason::of_mark(u32::try_from(key.get(1)?.as_u64()?).ok()?)?;
            Some(((link, reason), element["counter"]["packets"].as_u64()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nft_lists_is_read() {
        let text = r#"{"nftables": [{"metainfo": {"json_schema_version": 1}}, {"set": {"family": "inet", "name": "by_source",
            "table": "iaas_drops", "type": ["ifname", "mark"], "handle": 1, "size": 65535, "flags": ["dynamic"],
            "elem": [{"elem": {"val": {"concat": ["t0123456789ab", 3503292417]}, "counter": {"packets": 7, "bytes": 588}}}]}}]}"#;
        let listed: Value = serde_json::from_str(text).expect("json");
        assert_eq!(parse(&listed), [(("t0123456789ab".to_owned(), DropReason::Spoof), 7)]);
    }
}
