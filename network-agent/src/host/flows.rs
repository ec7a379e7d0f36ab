//! When the flows that a network's rules no longer allow are ended.
//!
//! After rules shrank, all tracked flows are judged once more, and the kernel gives them only by going through its whole table, which all
//! networks of the host share. Many small changes in a row would do that each time. So the first change is followed at once, and the
//! next look waits for a multiple of what the last one cost: the share of a processor that it takes is bounded, and so is the time for which
//! a flow may go on. A look that failed is repeated.

use super::Host;
use crate::{
    link::{
        conntrack,
        netns::{NetnsError, Worker},
    },
    model::{DesiredState, flow::FlowJudge, object::Network},
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Between two looks lies this many times what the last one took, ...
const REST: u32 = 20;
/// ... but no more than this.
const LONGEST_REST: Duration = Duration::from_secs(1);

/// Of one network.
#[derive(Debug, Default)]
pub struct FlowsToEnd {
    /// Rules shrank since the last look.
    due: bool,
    not_before: Option<Instant>,
    /// A round is requested for `not_before`.
    requested: bool,
}

impl FlowsToEnd {
    pub fn rules_shrank(&mut self) {
        self.due = true;
    }

    /// Ends what is to be ended now, and asks for a round later where it isn't time yet.
    pub async fn look(
        &mut self,
        host: &Arc<Host>,
        inside: &Worker,
        desired_state: &DesiredState,
        network: &Network,
    ) -> Result<(), NetnsError> {
        let now = Instant::now();
        if self.not_before.is_some_and(|at| now >= at) {
            (self.not_before, self.requested) = (None, false);
        }
        if !self.due {
            return Ok(());
        }
        if self.not_before.is_none() {
            self.due = false;
            let judge = FlowJudge::new(desired_state, network, &host.facts());
            let ended =
                inside.run(move |inside| conntrack::end_flows(&mut inside.rules, |flow| judge.allows(flow))).await;
            // Whatever failed is looked at again, also when this round ends with it.
            self.due = !matches!(ended, Ok(Ok(_)));
            self.not_before = Some(Instant::now() + rest_after(now.elapsed(), self.due));
            match ended? {
                Ok(0) => {}
                Ok(count) => {
                    metrics::counter!("iaas_network_flows_ended_total").increment(count as u64);
                    tracing::debug!(network_id = %network.id, count, "flows that are no longer allowed were ended");
                }
                Err(error) => {
                    tracing::warn!(network_id = %network.id, %error, "flows that are no longer allowed go on until the next try")
                }
            }
        }
        if let (true, false, Some(at)) = (self.due, self.requested, self.not_before) {
            self.requested = true;
            let (host, id) = (Arc::downgrade(host), network.id);
            tokio::spawn(async move {
                tokio::time::sleep_until(at.into()).await;
                if let Some(host) = host.upgrade() {
                    host.signal.mark([id]);
                }
            });
        }
        Ok(())
    }
}

fn rest_after(took: Duration, failed: bool) -> Duration {
    if failed { LONGEST_REST } else { (took * REST).min(LONGEST_REST) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_follows_from_the_cost_and_is_bounded() {
        let ms = Duration::from_millis;
        assert_eq!(rest_after(ms(3), false), ms(60));
        assert_eq!(rest_after(ms(700), false), LONGEST_REST);
        assert_eq!(rest_after(ms(3), true), LONGEST_REST);
    }
}
