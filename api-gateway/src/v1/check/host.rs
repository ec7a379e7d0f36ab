//! What a change of a host may say at all. Pure. Every violation is named at once.

use crate::app::host;
use api_types::{HostChange, HostReserve};
use domain::{Problem, Violations, validate};

/// A change whose form was checked.
pub fn check_change(body: HostChange) -> Result<host::HostChange, Problem> {
    let mut violations = Violations::default();
    if let Some(reason) = &body.cordon_reason {
        violations.description("/cordon_reason", reason);
        let uncordons = body.cordoned == Some(false) && !reason.is_empty();
        violations.unless(!uncordons, "/cordon_reason", || "a host that isn't cordoned has none".to_owned());
    }
    body.zone.iter().for_each(|zone| validate::name(&mut violations, "/zone", zone));
    body.tags.iter().for_each(|tags| validate::tags(&mut violations, "/tags", tags));
    let [cpu, memory, disk] =
        [body.cpu_overcommit, body.memory_overcommit, body.disk_overcommit].map(|ratio| ratio.map(permille));
    validate::host::overcommit(&mut violations, "/", cpu, memory, disk);
    violations.finish()?;
    let HostChange { cordoned, cordon_reason, draining, dedicated_to, zone, tags, .. } = body;
    let reserve = |HostReserve { vcpus, memory_mib, disk_gib }| host::HostReserve { vcpus, memory_mib, disk_gib };
    Ok(host::HostChange {
        cordoned,
        cordon_reason,
        draining,
        dedicated_to,
        zone,
        tags,
        cpu_overcommit_permille: cpu,
        memory_overcommit_permille: memory,
        disk_overcommit_permille: disk,
        reserved: body.reserved.map(reserve),
        accept_loss: body.accept_loss,
        accept_capacity: body.accept_capacity,
    })
}

/// The nearest thousandth. What is negative or no number becomes 0, which is out of bounds.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn permille(ratio: f64) -> u32 {
    (ratio * 1000.0).round() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_wrong_is_named() {
        let bad = HostChange {
            cordoned: Some(false),
            cordon_reason: Some("disk".into()),
            zone: Some("Zone A".into()),
            tags: Some([(String::new(), "x".into())].into()),
            cpu_overcommit: Some(f64::NAN),
            draining: None,
            dedicated_to: None,
            reserved: None,
            accept_loss: false,
            accept_capacity: false,
            memory_overcommit: Some(10.1),
            disk_overcommit: Some(-1.0),
        };
        let fields: Vec<_> = check_change(bad).expect_err("bad").errors.into_iter().map(|e| e.field).collect();
        assert_eq!(
            fields,
            ["/cordon_reason", "/zone", "/tags/", "/cpu_overcommit", "/memory_overcommit", "/disk_overcommit"]
        );
        assert_eq!(
            check_change(HostChange { cpu_overcommit: Some(4.0), ..HostChange::default() })
                .map(|c| c.cpu_overcommit_permille),
            Ok(Some(4000))
        );
        assert_eq!((permille(4.0), permille(1.5), permille(0.1)), (4000, 1500, 100));
    }
}
