//! Placement groups: what they say (written by the api-gateway), and where their members are (by the cluster-manager).
//!
//! That a hard constraint holds under any number of parallel creates is the schema's to guarantee, not a prior look's:
//! - **anti-affinity**: a member of a hard group writes its place as `exclusive_place`, unique in the group. Two creates that chose the
//!   same place can't both commit, and creates that chose different ones don't wait for each other, as they would on a generation.
//! - **affinity**: the group's anchor names the place of all members while it has any. Joining is refused anywhere else; the row's lock
//!   puts joiners in line.

use crate::{Page, ReadError, Store};
use domain::{
    HostId, InstanceId, Name, PlacementGroupId, ProjectId, Timestamp,
    flavor::Size,
    instance::InstanceSpec,
    placement::{GroupPolicy, GroupScope, GroupStrength, PlacementGroup},
};

op! {
    PlacementGroupInsert {
        id: PlacementGroupId,
        project_id: ProjectId,
        name: Name,
        policy: GroupPolicy,
        scope: GroupScope,
        strength: GroupStrength,
        created_at: Timestamp,
    }
    on placement_group, Insert by (id): insert { generation = "1" }
}

op! {
    /// Only without members.
    PlacementGroupDelete { id: PlacementGroupId }
    on placement_group, Change by (id), guard PlacementGroupInUse:
    "DELETE FROM placement_group WHERE id IN (SELECT r.id FROM {rows})
     AND NOT EXISTS (SELECT 1 FROM placement_member AS m WHERE m.group_id = placement_group.id)"
}

op! {
    /// An instance of this unit joins. It leaves with its row.
    PlacementMemberInsert {
        group_id: PlacementGroupId,
        instance_id: InstanceId,
        /// The host's id, the rack or the zone, as the group's scope says.
        place: String,
        /// Of a hard anti-affinity group: the place, where no other member may be.
        exclusive_place: Option<String>,
    }
    on placement_member, Insert by (group_id, instance_id): insert
}

op! {
    /// So many of this unit join a hard affinity group at this place.
    PlacementAnchorJoin { group_id: PlacementGroupId, place: String, members: i64 }
    on placement_anchor, Change by (group_id), guard PlacementAnchor,
    ensure "INSERT INTO placement_anchor (group_id, place, members)
     SELECT r.group_id, r.place, 0 FROM {rows} WHERE TRUE ON CONFLICT (group_id) DO NOTHING":
    "UPDATE placement_anchor SET place = r.place, members = placement_anchor.members + r.members
     FROM {rows} WHERE placement_anchor.group_id = r.group_id
     AND (placement_anchor.members = 0 OR placement_anchor.place = r.place)"
}

op! {
    /// A member of a hard affinity group goes to another place, because its host is lost. The anchor goes with it: the other members that can
    /// be recovered must follow, and those that wait for their host are near again when they are recreated.
    PlacementAnchorMove { group_id: PlacementGroupId, from_place: String, place: String }
    on placement_anchor, Change by (group_id), guard PlacementAnchor:
    "UPDATE placement_anchor SET place = r.place
     FROM {rows} WHERE placement_anchor.group_id = r.group_id AND placement_anchor.place IN (r.from_place, r.place)"
}

op! {
    /// The member is at another place from now on.
    PlacementMemberMove { group_id: PlacementGroupId, instance_id: InstanceId, place: String, exclusive_place: Option<String> }
    on placement_member, Change by (group_id, instance_id):
    "UPDATE placement_member SET place = r.place, exclusive_place = r.exclusive_place
     FROM {rows} WHERE placement_member.group_id = r.group_id AND placement_member.instance_id = r.instance_id"
}

op! {
    /// An instance whose row goes in this unit leaves the anchors of its groups. Other groups have none.
    PlacementAnchorLeave { group_id: PlacementGroupId }
    on placement_anchor, Add by (group_id):
    "UPDATE placement_anchor SET members = placement_anchor.members - c.members
     FROM (SELECT r.group_id, count(*) AS members FROM {rows} GROUP BY r.group_id) AS c
     WHERE placement_anchor.group_id = c.group_id"
}

record! { PlacementGroup, of placement_group { id, project_id, name, policy, scope, strength, generation, created_at } }

row! {
    /// An instance that later decisions must know of.
    pub struct AttachedRow {
        pub id: InstanceId,
        pub project_id: ProjectId,
        pub host_id: Option<HostId>,
        pub spec: InstanceSpec,
        pub claim_vcpus: u32,
        pub claim_memory_mib: u64,
        pub claim_disk_gib: u64,
        pub numa_node: Option<u32>,
    }
}

impl AttachedRow {
    #[must_use]
    pub fn claim(&self) -> Size {
        Size { vcpus: self.claim_vcpus, memory_mib: self.claim_memory_mib, disk_gib: self.claim_disk_gib }
    }
}

impl Store {
    pub async fn placement_group_find(
        &self,
        project_id: ProjectId,
        id: PlacementGroupId,
    ) -> Result<Option<PlacementGroup>, ReadError> {
        self.pool().find("WHERE id = $1 AND project_id = $2", [id.into(), project_id.into()]).await
    }

    pub async fn placement_group_find_by_name(
        &self,
        project_id: ProjectId,
        name: &str,
    ) -> Result<Option<PlacementGroup>, ReadError> {
        self.pool().find("WHERE project_id = $1 AND name = $2", [project_id.into(), name.into()]).await
    }

    pub async fn placement_group_list(
        &self,
        project_id: ProjectId,
        page: Page,
    ) -> Result<Vec<PlacementGroup>, ReadError> {
        self.pool().page(project_id, page).await
    }

    /// Of instances, by id.
    pub async fn placement_group_members(
        &self,
        group_id: PlacementGroupId,
        limit: u32,
    ) -> Result<Vec<InstanceId>, ReadError> {
        let sql = "SELECT instance_id AS id FROM placement_member WHERE group_id = $1 ORDER BY instance_id LIMIT $2";
        let rows: Vec<MemberRow> = self.pool().fetch_all(sql, [group_id.into(), limit.into()]).await?;
        Ok(rows.into_iter().map(|row| row.id).collect())
    }

    /// The instances with the mark `attached`: a page, by id.
    pub async fn instance_attached_list(&self, page: Page) -> Result<Vec<AttachedRow>, ReadError> {
        let sql = "SELECT id, project_id, host_id, spec, claim_vcpus, claim_memory_mib, claim_disk_gib, numa_node FROM instance \
                   WHERE attached AND id > $1 ORDER BY id LIMIT $2";
        self.pool().fetch_all(sql, [page.after_text().into(), page.limit.into()]).await
    }
}

row! {
    struct MemberRow {
        id: InstanceId,
    }
}
