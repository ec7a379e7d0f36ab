//! Compares both databases' catalogs with the table of named constraints: none is forgotten and none is stale.

use crate::server;
use std::collections::BTreeSet;
use store::{ConstraintName, NAMED_CONSTRAINTS, testing::TestDatabase};

fn named() -> impl Iterator<Item = &'static ConstraintName> {
    NAMED_CONSTRAINTS.iter().flat_map(|part| part.iter())
}

#[test]
fn every_migration_is_in_the_list() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../migrations");
    let files = std::fs::read_dir(folder).expect("readable").count();
    assert_eq!(i64::try_from(files).expect("few"), store::SCHEMA_VERSION, "a migration that isn't in the list");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_constraint_of_sqlite_is_known() {
    let database = TestDatabase::sqlite();
    database.open().await.close().await;
    let connection = server::sqlite(&database);
    let rows = |sql: &str| -> Vec<(String, String)> {
        let mut statement = connection.prepare(sql).expect("prepares");
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("queries");
        rows.map(|row| row.expect("a row")).collect()
    };
    let mut texts = BTreeSet::new();
    let tables = rows("SELECT name, sql FROM sqlite_schema WHERE type = 'table' AND name <> 'schema_version'");
    assert!(tables.len() > 20, "the schema is not there");
    for (table, sql) in &tables {
        for (index, _) in
            rows(&format!("SELECT name, origin FROM pragma_index_list('{table}') WHERE origin IN ('u', 'pk')"))
        {
            let columns = rows(
                &format!("SELECT name, seqno FROM pragma_index_xinfo('{index}') WHERE key AND cid >= 0")
                    .replace("seqno", "CAST(seqno AS TEXT)"),
            );
            let columns: Vec<String> = columns.iter().map(|(column, _)| format!("{table}.{column}")).collect();
            texts.insert(columns.join(", "));
        }
        for (column, parent) in rows(&format!("SELECT \"from\", \"table\" FROM pragma_foreign_key_list('{table}')")) {
            texts.insert(format!("{table}.{column} -> {parent}"));
        }
        for check in sql.split("CONSTRAINT ").skip(1).filter(|rest| rest.split_whitespace().nth(1) == Some("CHECK")) {
            texts.insert(check.split_whitespace().next().expect("a name").to_owned());
        }
    }
    let known: BTreeSet<String> = named().map(|c| c.sqlite.to_owned()).collect();
    assert_eq!(texts, known);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_constraint_of_postgres_is_known() {
    let Some(database) = TestDatabase::postgres().await else { return };
    database.open().await.close().await;
    let names: BTreeSet<String> = server::texts(
        &database,
        "SELECT conname::text FROM pg_constraint WHERE connamespace = 'public'::regnamespace
         AND conname <> 'schema_version_pkey'",
    )
    .await
    .into_iter()
    .collect();
    let known: BTreeSet<String> = named().map(|c| c.name.to_owned()).collect();
    assert_eq!(names, known);
}

#[test]
fn no_constraint_is_named_twice() {
    for of in [|c: &ConstraintName| c.name, |c: &ConstraintName| c.sqlite] {
        let texts: Vec<&str> = named().map(of).collect();
        assert_eq!(texts.len(), texts.iter().collect::<BTreeSet<_>>().len());
    }
}
