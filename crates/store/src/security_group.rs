//! Security groups and their rules. Written by the resource-manager. A change of a rule carries a change of its group, whose generation is
//! what hosts compare.

use crate::{Page, ReadError, Store, engine::read::text_array};
use domain::{
    Name, ProjectId, SecurityGroupId, SecurityRuleId, Timestamp,
    network::{SecurityGroup, SecurityGroupRule, SecurityRule},
};
use sqlx::AssertSqlSafe;
use std::collections::HashMap;

op! {
    /// The row starts at generation 1.
    SecurityGroupInsert {
        id: SecurityGroupId,
        project_id: ProjectId,
        name: Name,
        description: String,
        created_at: Timestamp,
    }
    on security_group, Insert by (id): insert { generation = "1" }
}

op! {
    /// Raises the generation; also with a rule that comes or goes.
    SecurityGroupChange { id: SecurityGroupId, expected_generation: i64, name: Name, description: String }
    on security_group, Change by (id), guard SecurityGroupGeneration:
    "UPDATE security_group SET name = r.name, description = r.description, generation = r.expected_generation + 1
     FROM {rows} WHERE security_group.id = r.id AND security_group.generation = r.expected_generation"
}

op! {
    /// Only when no port is in it and no rule of another group names it (else, or when it is gone or changed: `SecurityGroupInUse`).
    SecurityGroupDelete { id: SecurityGroupId, expected_generation: i64 }
    on security_group, Change by (id), guard SecurityGroupInUse:
    "DELETE FROM security_group WHERE (id, generation) IN (SELECT r.id, r.expected_generation FROM {rows})
     AND NOT EXISTS (SELECT 1 FROM port_security_group AS m WHERE m.security_group_id = security_group.id)
     AND NOT EXISTS (SELECT 1 FROM security_rule AS x WHERE x.remote_group_id = security_group.id
        AND x.security_group_id <> security_group.id)"
}

op! {
    SecurityRuleInsert {
        id: SecurityRuleId,
        security_group_id: SecurityGroupId,
        rule: SecurityRule,
        remote_group_id: Option<SecurityGroupId>,
        description: String,
    }
    on security_rule, Insert by (id): insert
}

op! {
    /// It is guarded, since quota is released with it.
    SecurityRuleDelete { id: SecurityRuleId, security_group_id: SecurityGroupId }
    on security_rule, Change by (id), guard SecurityRuleGone:
    "DELETE FROM security_rule WHERE (id, security_group_id) IN (SELECT r.id, r.security_group_id FROM {rows})"
}

row! {
    struct GroupRow of security_group {
        id: SecurityGroupId,
        project_id: ProjectId,
        name: Name,
        description: String,
        generation: i64,
        created_at: Timestamp,
    }
}

row! {
    struct RuleRow { id: SecurityRuleId, security_group_id: SecurityGroupId, rule: SecurityRule, description: String }
}

impl Store {
    /// With their rules.
    async fn security_groups(&self, rows: Vec<GroupRow>) -> Result<Vec<SecurityGroup>, ReadError> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<SecurityGroupId> = rows.iter().map(|row| row.id).collect();
        let sql = format!(
            "SELECT id, security_group_id, rule, description FROM security_rule WHERE security_group_id {} ORDER BY id",
            self.pool().in_texts(1)
        );
        let rules: Vec<RuleRow> = self.pool().fetch_all(AssertSqlSafe(sql), [text_array(&ids)]).await?;
        let mut of: HashMap<SecurityGroupId, Vec<SecurityGroupRule>> = HashMap::new();
        for RuleRow { id, security_group_id, rule, description } in rules {
            of.entry(security_group_id).or_default().push(SecurityGroupRule {
                id,
                security_group_id,
                rule,
                description,
            });
        }
        let group = |row: GroupRow| SecurityGroup {
            rules: of.remove(&row.id).unwrap_or_default(),
            id: row.id,
            project_id: row.project_id,
            name: row.name,
            description: row.description,
            generation: row.generation,
            created_at: row.created_at,
        };
        Ok(rows.into_iter().map(group).collect())
    }

    pub async fn security_group_find(&self, id: SecurityGroupId) -> Result<Option<SecurityGroup>, ReadError> {
        let rows = self.pool().list("WHERE id = $1", [id.into()]).await?;
        Ok(self.security_groups(rows).await?.pop())
    }

    pub async fn security_group_find_by_name(
        &self,
        project_id: ProjectId,
        name: &str,
    ) -> Result<Option<SecurityGroup>, ReadError> {
        let rows = self.pool().list("WHERE project_id = $1 AND name = $2", [project_id.into(), name.into()]).await?;
        Ok(self.security_groups(rows).await?.pop())
    }

    pub async fn security_group_list(
        &self,
        project_id: ProjectId,
        page: Page,
    ) -> Result<Vec<SecurityGroup>, ReadError> {
        let rows = self.pool().page(project_id, page).await?;
        self.security_groups(rows).await
    }

    /// All rows of all projects, for the resource-manager's memory.
    pub async fn security_group_load_all(&self) -> Result<Vec<SecurityGroup>, ReadError> {
        let rows = self.pool().list("ORDER BY id", []).await?;
        self.security_groups(rows).await
    }
}
