//! How the databases find what reads ask for: by an index, whatever the size of the table. What is read whole on purpose is named here.

use crate::{fixture::Lab, server};
use std::collections::BTreeSet;
use store::testing::reads_so_far;

/// Reads of a whole table, by a part of their text, and why they may.
const WHOLE: &[(&str, &str)] = &[
    (
        "FROM instance WHERE host_id IS NOT NULL GROUP BY host_id",
        "what the hosts' instances claim, at the manager's start",
    ),
    ("owner_id, free_at FROM address", "the resource-manager's memory, at its start"),
    ("FROM external_network ORDER BY id", "the resource-manager's memory, at its start"),
    ("FROM floating_ip ORDER BY id", "the resource-manager's memory, at its start"),
    ("FROM network ORDER BY id", "the resource-manager's memory, at its start"),
    ("FROM peering ORDER BY id", "the resource-manager's memory, at its start"),
    ("FROM port ORDER BY id", "the resource-manager's memory, at its start"),
    ("FROM port_security_group ORDER BY", "the resource-manager's memory, at its start"),
    ("FROM router ORDER BY id", "the resource-manager's memory, at its start"),
    ("FROM security_group ORDER BY id", "the resource-manager's memory, at its start"),
    ("FROM subnet ORDER BY id", "the resource-manager's memory, at its start"),
    ("FROM uplink ORDER BY", "the resource-manager's memory, at its start"),
    ("FROM network_host", "as many as hosts"),
    ("FROM host ORDER BY id", "the inventory, at the cluster-manager's start"),
    ("FROM host_admission ORDER BY", "the fleet, which every manager knows"),
    ("FROM host_verdict ORDER BY host_id", "as many as lost hosts"),
    ("FROM cpu_baseline", "a few"),
    ("FROM signing_key", "a few"),
    ("FROM event_head", "one row"),
    ("SELECT COALESCE(c.instances, 0)", "one row that is given"),
    ("count(*) AS n FROM user_account", "at the gateway's start, whether there is anybody yet"),
    ("count(*) AS n FROM orphan", "what should not be there"),
    ("SELECT DISTINCT sha256 FROM image_object", "the objects to keep, every ten minutes"),
];

fn may_read_whole(sql: &str) -> bool {
    // Without a condition and with a limit, it is a page in the order of an index.
    let page = !sql.contains("WHERE") && sql.contains(" LIMIT ");
    page || WHOLE.iter().any(|(part, _)| sql.contains(part))
}

/// Every read that was run so far on this database's kind.
pub async fn every_read_finds_its_rows_by_an_index(lab: &Lab) {
    let reads = reads_so_far(lab.on_postgres());
    assert!(reads.len() > 60, "{} reads", reads.len());
    let mut slow = Vec::new();
    if !lab.on_postgres() {
        pretend_a_million_rows(lab);
    }
    for sql in reads.iter().filter(|sql| !may_read_whole(sql)) {
        let scans = if lab.on_postgres() { postgres_scans(lab, sql).await } else { sqlite_scans(lab, sql) };
        slow.extend(scans.into_iter().map(|scan| format!("{scan}: {sql}")));
    }
    assert!(slow.is_empty(), "reads that go through whole tables:\n{}", slow.join("\n"));
}

/// What the planner believes about every table: a million rows, of which each further column of an index leaves a hundredth. SQLite plans by these
/// figures and by nothing else; PostgreSQL is asked for plans in which reading a whole table is the last resort.
fn pretend_a_million_rows(lab: &Lab) {
    let connection = server::sqlite(&lab.db.database);
    connection.execute_batch("ANALYZE").expect("statistics");
    let indexes =
        "SELECT tbl_name, name, (SELECT count(*) FROM pragma_index_info(name)) FROM sqlite_schema WHERE type = 'index'";
    let mut indexes = connection.prepare(indexes).expect("prepares");
    let indexes = indexes.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).expect("queries");
    let indexes: Vec<(String, String, u32)> = indexes.map(|index| index.expect("an index")).collect();
    assert!(indexes.len() > 50, "{} indexes", indexes.len());
    connection.execute("DELETE FROM sqlite_stat1", []).expect("forgotten");
    for (table, index, columns) in indexes {
        let rows_left = (1..=columns).map(|column| (1_000_000 / 100_u64.saturating_pow(column)).max(1).to_string());
        let figures = ["1000000".to_owned()].into_iter().chain(rows_left).collect::<Vec<_>>().join(" ");
        connection
            .execute("INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES (?1, ?2, ?3)", [&table, &index, &figures])
            .expect("pretended");
    }
}

fn sqlite_scans(lab: &Lab, sql: &str) -> Vec<String> {
    let connection = server::sqlite(&lab.db.database);
    // What a partial index holds is what is looked for.
    let partial = "SELECT name FROM sqlite_schema WHERE type = 'index' AND sql LIKE '% WHERE %'";
    let mut partial = connection.prepare(partial).expect("prepares");
    let partial = partial.query_map([], |row| row.get(0)).expect("queries");
    let partial: Vec<String> = partial.map(|name| name.expect("a name")).collect();
    let mut plan = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).expect(sql);
    let mut rows = plan.raw_query();
    let mut scans = Vec::new();
    while let Some(row) = rows.next().expect(sql) {
        let step: String = row.get(3).expect("a step");
        let Some(scanned) = step.strip_prefix("SCAN ").and_then(|rest| rest.split(' ').next()) else { continue };
        // What the statement was given, or has just found: JSON, and a page that was read by an index.
        let given = ["json_each", "CONSTANT", "p", "x", "o", "t", "tag"].contains(&scanned)
            || scanned.starts_with('(')
            || step.contains(" VIRTUAL TABLE ");
        if !given && !partial.iter().any(|index| step.ends_with(index.as_str())) {
            scans.push(step);
        }
    }
    scans
}

async fn postgres_scans(lab: &Lab, sql: &str) -> Vec<String> {
    let partial: BTreeSet<String> = server::texts(
        &lab.db.database,
        "SELECT indexname::text FROM pg_indexes WHERE schemaname = 'public' AND indexdef LIKE '% WHERE %'",
    )
    .await
    .into_iter()
    .collect();
    let plan = server::plan(&lab.db.database, sql).await;
    let mut scans = Vec::new();
    for (at, line) in plan.iter().enumerate() {
        let by = line.split(" using ").nth(1).or_else(|| line.split("Bitmap Index Scan on ").nth(1));
        let index = by.and_then(|rest| rest.split(' ').next());
        let found = plan.get(at + 1).is_some_and(|next| next.trim_start().starts_with("Index Cond:"));
        if line.contains("Seq Scan on") || index.is_some_and(|index| !found && !partial.contains(index)) {
            scans.push(line.trim().to_owned());
        }
    }
    scans
}
