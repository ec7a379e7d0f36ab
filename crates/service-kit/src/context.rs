//! The context of a call, carried in gRPC metadata from the edge to the last service: who made the request, under which id, as which
//! operation, and whether it is a dry run.

use domain::OperationId;
use tonic::metadata::{MetadataMap, MetadataValue};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CallContext {
    pub request_id: String,
    /// Unique per accepted mutation: a repeat with the same one gets the first answer.
    pub operation_id: Option<OperationId>,
    /// `user:<id>`, `api_key:<id>` or `system`.
    pub principal: String,
    /// The principal's name, for the audit log.
    pub principal_name: String,
    pub dry_run: bool,
}

const REQUEST_ID: &str = "x-request-id";
const OPERATION_ID: &str = "x-iaas-operation-id";
const PRINCIPAL: &str = "x-iaas-principal";
const PRINCIPAL_NAME: &str = "x-iaas-principal-name";
const DRY_RUN: &str = "x-iaas-dry-run";

impl CallContext {
    /// The context of work that no request started.
    #[must_use]
    pub fn system(reason: &str) -> Self {
        Self {
            request_id: format!("{reason}-{}", uuid::Uuid::now_v7().simple()),
            principal: "system".to_owned(),
            principal_name: "system".to_owned(),
            ..Self::default()
        }
    }

    pub fn inject<T>(&self, request: &mut tonic::Request<T>) {
        let metadata = request.metadata_mut();
        let mut put = |key: &'static str, value: &str| {
            // Only visible ASCII can be sent. Names are validated to be that, and another request id is left out.
            if let Ok(value) = MetadataValue::try_from(value) {
                metadata.insert(key, value);
            }
        };
        put(REQUEST_ID, &self.request_id);
        put(PRINCIPAL, &self.principal);
        put(PRINCIPAL_NAME, &self.principal_name);
        if let Some(id) = self.operation_id {
            put(OPERATION_ID, &id.to_string());
        }
        if self.dry_run {
            put(DRY_RUN, "true");
        }
    }

    /// `message` in a request that carries this context.
    pub fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        self.inject(&mut request);
        request
    }

    #[must_use]
    pub fn extract<T>(request: &tonic::Request<T>) -> Self {
        let metadata: &MetadataMap = request.metadata();
        let get = |key: &str| metadata.get(key).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
        Self {
            request_id: get(REQUEST_ID),
            operation_id: get(OPERATION_ID).parse().ok(),
            principal: get(PRINCIPAL),
            principal_name: get(PRINCIPAL_NAME),
            dry_run: get(DRY_RUN) == "true",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_survives_the_metadata() {
        let context = CallContext {
            request_id: "req-1".into(),
            operation_id: Some(OperationId::new()),
            principal: "user:x".into(),
            principal_name: "ann".into(),
            dry_run: true,
        };
        assert_eq!(CallContext::extract(&context.request(())), context);
        assert_eq!(CallContext::extract(&tonic::Request::new(())), CallContext::default());
    }
}
