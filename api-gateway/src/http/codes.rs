//! Every `code` that an error can carry. docs/errors.md is made of this; a test finds codes in the sources that aren't here.

use domain::ErrorKind;
use std::fmt::Write as _;

pub struct Code {
    pub code: &'static str,
    pub kinds: &'static [ErrorKind],
    /// The code's meaning, and what to do.
    pub meaning: &'static str,
}

const fn code(code: &'static str, kinds: &'static [ErrorKind], meaning: &'static str) -> Code {
    Code { code, kinds, meaning }
}

use ErrorKind as K;

/// All codes, sorted.
pub const CODES: &[Code] = &[
    code("address_is_gateway", &[K::InvalidArgument], "The address is the subnet's gateway."),
    code(
        "address_not_usable",
        &[K::InvalidArgument],
        "The address is the subnet's network or broadcast address: no host can have it.",
    ),
    code("address_outside_subnet", &[K::InvalidArgument], "The address is in none of the subnets."),
    code(
        "address_quarantined",
        &[K::AlreadyExists],
        "The address was released a moment ago and is quarantined. Try again when the detail says, or take another.",
    ),
    code("address_taken", &[K::AlreadyExists], "Another port has the address."),
    code(
        "ambiguous_name",
        &[K::InvalidArgument],
        "Several objects have that name (subnets of different networks). Use the id.",
    ),
    code("api_key_not_found", &[K::NotFound], "You have no API key of that id or name."),
    code("backup_in_progress", &[K::InvalidState], "Another backup is being made. Look at the list when it is done."),
    code(
        "backup_not_sqlite",
        &[K::InvalidState],
        "The database is PostgreSQL. Its own tools copy it: `pg_dump --format=custom`.",
    ),
    code(
        "bad_cursor",
        &[K::InvalidArgument],
        "The cursor is not from this API, or belongs to another list or other filters. Start again without one.",
    ),
    code("bad_idempotency_key", &[K::InvalidArgument], "`Idempotency-Key` isn't 1 to 255 visible ASCII characters."),
    code("bad_if_match", &[K::InvalidArgument], "`If-Match` isn't one ETag of this server, like `\"7\"`."),
    code("bad_ticket", &[K::Unauthenticated], "The console's ticket is unknown, expired or used. Request a new one."),
    code("body_incomplete", &[K::InvalidArgument], "The request's body ended before its time. Nothing was done."),
    code(
        "conflict",
        &[K::StaleGeneration],
        "Another change of the object came first. Read it again, and repeat the change if it still makes sense.",
    ),
    code("console_session_not_found", &[K::NotFound], "The console's session has ended. Request a new ticket."),
    code("console_timeout", &[K::DeadlineExceeded], "The instance's host didn't answer the console's request in time."),
    code(
        "database_damaged",
        &[K::InvalidState],
        "A copy of the database was read back and is damaged. If it happens twice, the database is: restore the last good backup.",
    ),
    code(
        "database_unavailable",
        &[K::Unavailable],
        "The database doesn't answer. Repeat with the same `Idempotency-Key`.",
    ),
    code(
        "deadline_exceeded",
        &[K::DeadlineExceeded],
        "A service took too long; the outcome is unknown. Repeat with the same `Idempotency-Key`.",
    ),
    code("default_group", &[K::InvalidState], "The project's security group `default` can't be renamed or deleted."),
    code("disk_not_found", &[K::NotFound], "There is no such disk: its reservation expired, or its instance is gone."),
    code("disk_role_taken", &[K::AlreadyExists], "The instance has a disk of that role already."),
    code("disk_shrink", &[K::InvalidArgument], "A disk can't become smaller."),
    code(
        "external_network_in_use",
        &[K::InvalidState],
        "Routers or floating IPs need the external network (or the part of it that would be removed).",
    ),
    code("external_network_not_found", &[K::NotFound], "There is no external network of that id or name."),
    code("flavor_not_found", &[K::NotFound], "There is no flavor of that id or name."),
    code("floating_ip_exists", &[K::AlreadyExists], "Another floating IP already leads to that address."),
    code("floating_ip_not_found", &[K::NotFound], "The project has no floating IP of that id or address."),
    code(
        "foreign_image",
        &[K::PermissionDenied],
        "The image is a public image of another project: it can be used, but not changed.",
    ),
    code(
        "host_disconnected",
        &[K::Unavailable],
        "The instance's host isn't connected. The instance goes on; its console and log can't be reached now.",
    ),
    code("host_in_use", &[K::InvalidState], "The host has instances. Cordon it, delete its instances, then remove it."),
    code(
        "host_is_connected",
        &[K::InvalidState],
        "The host's agent is connected, or was seconds ago: a host that lives can't be declared dead. Switch it off first.",
    ),
    code(
        "host_is_local",
        &[K::InvalidState],
        "The host's agent needs no certificate (it runs beside the managers), so it would come back. Stop it first.",
    ),
    code(
        "host_known",
        &[K::PermissionDenied],
        "The host is already known, with another key or none. Only a token that names it can change that.",
    ),
    code("host_name_taken", &[K::AlreadyExists], "Another host is registered under that name."),
    code(
        "host_not_admitted",
        &[K::PermissionDenied],
        "The host isn't part of this fleet, or not with this key. Join with a new token.",
    ),
    code("host_not_found", &[K::NotFound], "There is no host of that id or name."),
    code("host_token_expired", &[K::Unauthenticated], "The host token has expired. Create a new one."),
    code("host_token_for_another", &[K::PermissionDenied], "The host token is for a host of another name."),
    code(
        "host_token_invalid",
        &[K::Unauthenticated],
        "The host token is unknown: deleted, or of another installation.",
    ),
    code("host_token_not_found", &[K::NotFound], "There is no host token of that id."),
    code(
        "host_token_used",
        &[K::PermissionDenied],
        "The host token has already admitted another host. Create one token for each host.",
    ),
    code("id_taken", &[K::AlreadyExists], "An object of that id exists already."),
    code("image_in_use", &[K::InvalidState], "Instances use the image. Delete them first."),
    code(
        "image_not_active",
        &[K::InvalidState],
        "The image isn't active: some of its parts are missing, or it is being deleted.",
    ),
    code("image_not_found", &[K::NotFound], "There is no image of that id or name in the project, and no public one."),
    code(
        "image_refused",
        &[K::InvalidArgument],
        "The image's content isn't what it says, or refers to files outside itself.",
    ),
    code("image_too_large", &[K::PayloadTooLarge], "The part is larger than the installation takes."),
    code("instance_not_found", &[K::NotFound], "There is no instance of that id or name in the project."),
    code("internal", &[K::Internal], "An error of the server, logged under the request id."),
    code("invalid_allocation", &[K::InvalidArgument], "The allocation ranges overlap or leave the block."),
    code("invalid_argument", &[K::InvalidArgument], "Something in the request is wrong: `errors` names the fields."),
    code("invalid_cidr", &[K::InvalidArgument], "The block is reserved, too small or too large for a subnet."),
    code("invalid_gateway", &[K::InvalidArgument], "The gateway isn't a usable address of the block."),
    code("invalid_host_route", &[K::InvalidArgument], "The host route's next hop isn't in the block."),
    code("invalid_rule", &[K::InvalidArgument], "The security rule contradicts itself."),
    code("invalid_state", &[K::InvalidState], "The object's state doesn't allow this."),
    code(
        "join_throttled",
        &[K::RateLimited],
        "Too many hosts failed to join from this address. `Retry-After` says how long to wait.",
    ),
    code(
        "key_restricted",
        &[K::PermissionDenied],
        "An API key bound to a project, a role or a time can't manage API keys.",
    ),
    code("key_reused", &[K::KeyReused], "The `Idempotency-Key` was used for another request. Use a new one."),
    code(
        "local_disk",
        &[K::InvalidState],
        "`on_host_loss: restart` needs a disk that outlives its host; a local pool's doesn't.",
    ),
    code("login_failed", &[K::Unauthenticated], "There is no such user, it is disabled, or the password is wrong."),
    code(
        "login_throttled",
        &[K::RateLimited],
        "Too many wrong passwords for this user from this address. `Retry-After` says how long to wait.",
    ),
    code("mac_taken", &[K::AlreadyExists], "The MAC address is another port's."),
    code("malformed_json", &[K::InvalidArgument], "The body isn't JSON."),
    code("member_not_found", &[K::NotFound], "That user isn't in the project."),
    code(
        "method_not_allowed",
        &[K::MethodNotAllowed],
        "The path exists, but not with this method. `Allow` names the methods.",
    ),
    code("name_taken", &[K::AlreadyExists], "Another object of the kind has the name."),
    code("network_in_use", &[K::InvalidState], "The network has ports, a router or peerings. Delete them first."),
    code("network_not_found", &[K::NotFound], "There is no network of that id or name in the project."),
    code(
        "network_not_routed",
        &[K::InvalidState],
        "The port's network has no router to the floating IP's external network. Create one.",
    ),
    code(
        "network_without_subnet",
        &[K::InvalidState],
        "The network has no subnet to take an address from. Create one.",
    ),
    code("nic_not_found", &[K::NotFound], "The instance has no NIC with that port."),
    code("no_address", &[K::InvalidState], "The instance has no NIC, or no address, that a floating IP could lead to."),
    code(
        "no_capacity",
        &[K::NoCapacity],
        "No host has enough free capacity now. `explain` says why each host was rejected, and what would fit.",
    ),
    code(
        "no_default_group",
        &[K::InvalidState],
        "The project's security group `default` isn't there yet. Try again, or name the groups.",
    ),
    code("no_free_address", &[K::InvalidState], "No address is free. The hint says when the next one is."),
    code(
        "no_root_disk",
        &[K::InvalidArgument],
        "The instance has no root disk, so it can't be resized to have one, or rebuilt.",
    ),
    code("not_found", &[K::NotFound], "There is no such object."),
    code(
        "not_leader",
        &[K::Unavailable],
        "The process that was called doesn't lead its role, and wrote nothing. Its successor takes over within seconds: try again.",
    ),
    code("not_oneself", &[K::InvalidState], "You can't delete yourself or take away your own administrator rights."),
    code("not_ready", &[K::Unavailable], "Something the API needs doesn't work; the detail says what."),
    code("parent_not_found", &[K::NotFound], "The object that it would belong to was deleted meanwhile."),
    code(
        "part_exists",
        &[K::InvalidState],
        "The image has that part already, with other bytes. An image's content never changes: create a new image.",
    ),
    code(
        "password_required",
        &[K::PermissionDenied],
        "An API key that is limited neither to a project nor to a role below admin needs your password.",
    ),
    code("payload_too_large", &[K::PayloadTooLarge], "The body is larger than the route takes."),
    code("peering_exists", &[K::AlreadyExists], "The two networks are peered already."),
    code("peering_not_found", &[K::NotFound], "There is no peering of that id or name in the project."),
    code("permission_denied", &[K::PermissionDenied], "Your role doesn't allow this; the detail says which would."),
    code(
        "placement_contended",
        &[K::Unavailable],
        "Other requests took the capacity again and again while this one was placed. Repeat it.",
    ),
    code("placement_group_in_use", &[K::InvalidState], "Instances are in the placement group. Delete them first."),
    code("placement_group_not_found", &[K::NotFound], "The project has no placement group of that id or name."),
    code(
        "placement_record_not_found",
        &[K::NotFound],
        "The project has no placement record of that id, or it is no longer kept.",
    ),
    code("port_attached", &[K::InvalidState], "The port is already the NIC of an instance. Detach it first."),
    code(
        "port_in_use",
        &[K::InvalidState],
        "An instance uses the port, or a floating IP leads to it. The detail says which.",
    ),
    code("port_not_bound", &[K::InvalidState], "The port is on no host. Attach it to a running instance."),
    code("port_not_found", &[K::NotFound], "There is no port of that id or name in the project."),
    code(
        "precondition_failed",
        &[K::PreconditionFailed],
        "The object isn't at the generation that `If-Match` names. Read it again.",
    ),
    code(
        "project_in_use",
        &[K::InvalidState],
        "The project has instances, images, disks, ports, floating IPs, networks or security groups. Delete them first.",
    ),
    code("project_not_found", &[K::NotFound], "There is no project of that id or name, or you aren't in it."),
    code(
        "project_required",
        &[K::InvalidArgument],
        "The request names no project and you have no home project, or you are a system administrator: name one with `?project=` or `X-Iaas-Project`.",
    ),
    code(
        "quota_exceeded",
        &[K::QuotaExceeded],
        "The project's quota (or the number of API keys that a user may have) would be exceeded; the detail says which.",
    ),
    code("rate_limited", &[K::RateLimited], "Too many requests a second. `Retry-After` says when to try again."),
    code("recovery_not_found", &[K::NotFound], "There is no recovery of that id. Reports are kept for a time."),
    code(
        "refresh_token_invalid",
        &[K::Unauthenticated],
        "The refresh token is unknown, expired or revoked. Log in again.",
    ),
    code(
        "refresh_token_reused",
        &[K::Unauthenticated],
        "The refresh token was used before, so all tokens of that login are revoked. Log in again.",
    ),
    code(
        "request_timeout",
        &[K::DeadlineExceeded],
        "The request took longer than the server allows; its outcome is unknown.",
    ),
    code("route_not_found", &[K::NotFound], "There is nothing at that path."),
    code("router_exists", &[K::AlreadyExists], "The network has a router already."),
    code("router_in_use", &[K::InvalidState], "Floating IPs of the network need the router. Dissociate them first."),
    code("router_not_found", &[K::NotFound], "There is no router of that id or name in the project."),
    code("rule_exists", &[K::AlreadyExists], "The security group has such a rule already."),
    code(
        "security_group_in_use",
        &[K::InvalidState],
        "Ports are in the security group, or rules of other groups name it.",
    ),
    code("security_group_not_found", &[K::NotFound], "There is no security group of that id or name in the project."),
    code("security_rule_not_found", &[K::NotFound], "The security group has no rule of that id."),
    code("session_required", &[K::PermissionDenied], "This needs a login: an API key can't."),
    code(
        "sha256_mismatch",
        &[K::InvalidArgument],
        "The bytes aren't the ones that were announced. Nothing was kept: send them again.",
    ),
    code(
        "shared_disk",
        &[K::InvalidState],
        "`on_host_loss: recreate` makes the disk anew; one in the shared pool isn't lost with its host.",
    ),
    code("shutting_down", &[K::Unavailable], "The server is stopping."),
    code(
        "size_mismatch",
        &[K::InvalidArgument],
        "The number of bytes isn't the one that was announced. Nothing was kept: send them again.",
    ),
    code("size_too_small", &[K::InvalidArgument], "The image needs more memory or disk than the size has."),
    code("ssh_key_not_found", &[K::NotFound], "The project has no SSH key of that id or name."),
    code(
        "stale_epoch",
        &[K::StaleGeneration],
        "The port was bound for a newer epoch of its instance meanwhile. Only services get this error.",
    ),
    code(
        "stale_generation",
        &[K::StaleGeneration, K::PreconditionFailed],
        "The object changed meanwhile. Read it again, and repeat the change if it still makes sense.",
    ),
    code(
        "storage_full",
        &[K::Unavailable],
        "A disk of the control plane is full: the image store's, or the database's. The detail says which. Deleting is possible; an administrator must free space.",
    ),
    code("subnet_in_use", &[K::InvalidState], "Ports have addresses of the subnet. Delete or detach them first."),
    code(
        "subnet_not_found",
        &[K::NotFound],
        "There is no subnet of that id or name in the project (or, for an address of a port, in its network).",
    ),
    code(
        "subnet_overlaps",
        &[K::AlreadyExists, K::InvalidState],
        "The range overlaps another range of the network, or of a network that it is peered with.",
    ),
    code("target_without_ipv4", &[K::InvalidState], "The port has no IPv4 address that a floating IP could lead to."),
    code("token_expired", &[K::Unauthenticated], "The token has expired. Refresh it, or create a new API key."),
    code("token_invalid", &[K::Unauthenticated], "The token isn't one of this installation, or was revoked."),
    code("token_missing", &[K::Unauthenticated], "The request has no header `Authorization: Bearer …`."),
    code("too_many_consoles", &[K::RateLimited], "Too many consoles are open."),
    code(
        "too_many_hosts_lost",
        &[K::InvalidState],
        "So many hosts of a zone look lost at once that none is declared lost by itself. Look at the network first.",
    ),
    code(
        "too_many_keys",
        &[K::RateLimited],
        "You have used as many idempotency keys within a day as are kept for one user or API key.",
    ),
    code("too_many_streams", &[K::RateLimited], "Too many event streams are open: by you, or in all."),
    code("too_many_waits", &[K::RateLimited], "Too many requests wait (`?wait=`): yours, or in all."),
    code(
        "unavailable",
        &[K::Unavailable],
        "A service behind the API doesn't answer now. Repeat with the same `Idempotency-Key`.",
    ),
    code("underlay_address_taken", &[K::AlreadyExists], "Another host has the underlay address."),
    code("unsupported_media_type", &[K::UnsupportedMediaType], "The body's `Content-Type` isn't one the route takes."),
    code("upload_cut", &[K::InvalidArgument], "The upload ended too early. Nothing was kept: send it again."),
    code(
        "upload_stalled",
        &[K::DeadlineExceeded],
        "The upload sent nothing for too long. Nothing was kept: send it again.",
    ),
    code(
        "user_names_throttled",
        &[K::RateLimited],
        "An admin of a project named many users that don't exist. Ask the users for their exact names.",
    ),
    code("user_not_found", &[K::NotFound], "There is no user of that id or name."),
    code("vnis_exhausted", &[K::InvalidState], "This cloud has reached its maximum number of networks."),
    code(
        "wait_timeout",
        &[K::DeadlineExceeded],
        "The wait ended before the object was as expected; the detail says its state and step. The change goes on.",
    ),
    code("weak_password", &[K::InvalidArgument], "The password is too short, too long or too easy."),
    code("wrong_password", &[K::PermissionDenied], "The current password is wrong."),
];

/// docs/errors.md.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::from(
        "# Errors\n\n\
         <!-- Made from api-gateway/src/http/codes.rs: UPDATE_GOLDEN=1 cargo test -p api-gateway --test gateway golden -->\n\n\
         Every error is an `application/problem+json` document (RFC 9457): `type` (`urn:iaas:problem:<code>`), `title`, `status`, `code`, \
         `detail`\n(what failed, on which object), `hint` (what to do next, where there is something), `request_id` (the answer's \
         `X-Request-Id`, and the\nkey to our log), `errors` (each wrong field: a JSON pointer into the body, or the name of a parameter or \
         header) and, for a refused\nplacement, `explain`. `code` is stable: programs decide by it, never by texts. `Retry-After` comes with \
         429 and 503.\n\n\
         | code | status | retry | meaning |\n|---|---|---|---|\n",
    );
    for code in CODES {
        let statuses: Vec<_> = code.kinds.iter().map(|k| k.http_status().to_string()).collect();
        let retry = code.kinds.first().map_or("", |k| retry(*k));
        let _ = writeln!(text, "| `{}` | {} | {retry} | {} |", code.code, statuses.join(", "), code.meaning);
    }
    text
}

fn retry(kind: ErrorKind) -> &'static str {
    match kind.retry() {
        domain::problem::Retry::No => "no",
        domain::problem::Retry::ReRead => "after reading again",
        domain::problem::Retry::Later => "later",
        domain::problem::Retry::Yes => "yes",
        domain::problem::Retry::IfIdempotent => "with the same key",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorted_without_repeats() {
        assert!(CODES.windows(2).all(|w| w[0].code < w[1].code));
    }
}
