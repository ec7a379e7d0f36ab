use crate::{
    Client, ClientError, Mutation,
    http::{Call, segment},
    model::{Instance, NicRequest, PortTraffic, SecurityRule, SecurityRuleCreate},
};
use reqwest::Method;

impl Client {
    pub async fn port_traffic(&self, port: &str) -> Result<PortTraffic, ClientError> {
        self.json(&Call::get(format!("/v1/ports/{}/traffic", segment(port)), &[])).await
    }

    pub fn security_rule_create(&self, group: &str, request: &SecurityRuleCreate) -> Mutation<SecurityRule> {
        Mutation::new(self, Method::POST, format!("/v1/security-groups/{}/rules", segment(group))).body(request)
    }

    pub fn security_rule_delete(&self, group: &str, rule: &str) -> Mutation<()> {
        let path = format!("/v1/security-groups/{}/rules/{}", segment(group), segment(rule));
        Mutation::new(self, Method::DELETE, path)
    }

    /// A NIC more, also while it runs.
    pub fn instance_attach(&self, instance: &str, nic: &NicRequest) -> Mutation<Instance> {
        Mutation::new(self, Method::POST, format!("/v1/instances/{}/nics", segment(instance))).body(nic)
    }

    /// The NIC with this port less.
    pub fn instance_detach(&self, instance: &str, port: &str) -> Mutation<Instance> {
        let path = format!("/v1/instances/{}/nics/{}", segment(instance), segment(port));
        Mutation::new(self, Method::DELETE, path)
    }
}
