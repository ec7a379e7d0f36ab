//! OpenAPI descriptions of routes that are written once for several kinds of objects. `#[utoipa::path]` describes one function for one body; a generic
//! function is described here, from the texts of its kind and the schemas of its types.

use super::view::plan::DryRun;
use crate::{app::App, http::page::List};
use axum::routing::MethodRouter;
use utoipa::{
    __dev::ComposeSchema,
    IntoParams, PartialSchema, ToSchema,
    openapi::{
        Content, HttpMethod, Ref, RefOr, Required, Response, Schema,
        path::{Operation, OperationBuilder, Parameter, ParameterBuilder, ParameterIn, Paths},
        request_body::RequestBodyBuilder,
        response::ResponseBuilder,
    },
};
use utoipa_axum::router::UtoipaMethodRouter;

type Schemas = Vec<(String, RefOr<Schema>)>;

fn named(schema: &str) -> Content {
    Content::new(Some(RefOr::<Schema>::Ref(Ref::from_schema_name(schema))))
}

fn json_response(description: &str, schema: &str) -> Response {
    ResponseBuilder::new().description(description).content("application/json", named(schema)).build()
}

/// One operation: what it is called, takes and answers.
pub struct Description {
    operation: Operation,
    schemas: Schemas,
}

impl Description {
    pub fn new(tag: &str, operation_id: &str, summary: &str) -> Self {
        let operation =
            OperationBuilder::new().tag(tag).operation_id(Some(operation_id)).summary(Some(summary)).build();
        Self { operation, schemas: Vec::new() }
    }

    fn parameter(&mut self, parameter: Parameter) {
        self.operation.parameters.get_or_insert_default().push(RefOr::T(parameter));
    }

    pub fn path_param(mut self, name: &str, description: &str) -> Self {
        let parameter = ParameterBuilder::new()
            .name(name)
            .parameter_in(ParameterIn::Path)
            .description(Some(description))
            .required(Required::True)
            .schema(Some(String::schema()));
        self.parameter(parameter.build());
        self
    }

    pub fn params<P: IntoParams>(mut self) -> Self {
        P::into_params(|| None).into_iter().for_each(|parameter| self.parameter(parameter));
        self
    }

    /// Adds the schema and those that it refers to; returns its name.
    fn schema<T: ToSchema>(&mut self) -> String {
        T::schemas(&mut self.schemas);
        let name = T::name().into_owned();
        self.schemas.push((name.clone(), T::schema()));
        name
    }

    pub fn body<B: ToSchema>(mut self) -> Self {
        let name = self.schema::<B>();
        let body = RequestBodyBuilder::new().content("application/json", named(&name)).required(Some(Required::True));
        self.operation.request_body = Some(RefOr::T(body.build()));
        self
    }

    fn respond(mut self, status: &str, response: Response) -> Self {
        self.operation.responses.responses.insert(status.to_owned(), RefOr::T(response));
        self
    }

    pub fn answers<T: ToSchema>(mut self, status: &str) -> Self {
        let name = self.schema::<T>();
        self.respond(status, json_response("", &name))
    }

    /// A page of items. The name says of what, and the items are described in place, as `#[utoipa::path]` does it.
    pub fn answers_list<T: ToSchema>(mut self) -> Self {
        T::schemas(&mut self.schemas);
        let name = format!("List_{}", T::name());
        self.schemas.push((name.clone(), List::<T>::compose(vec![T::schema()])));
        self.respond("200", json_response("", &name))
    }

    pub fn answers_dry_run(mut self) -> Self {
        let name = self.schema::<DryRun>();
        self.respond("200", json_response("With dry_run.", &name))
    }

    pub fn answers_nothing(self, status: &str, description: &str) -> Self {
        self.respond(status, Response::new(description))
    }
}

/// Routes of one path, each with its description.
pub struct Described {
    path: String,
    schemas: Schemas,
    paths: Paths,
    router: MethodRouter<App>,
}

impl Described {
    pub fn at(path: impl Into<String>) -> Self {
        Self { path: path.into(), schemas: Vec::new(), paths: Paths::new(), router: MethodRouter::new() }
    }

    pub fn on(mut self, method: HttpMethod, description: Description, router: MethodRouter<App>) -> Self {
        let Description { operation, mut schemas } = description;
        self.schemas.append(&mut schemas);
        self.paths.add_path_operation(&self.path, vec![method], operation);
        self.router = self.router.merge(router);
        self
    }

    pub fn routes(self) -> UtoipaMethodRouter<App> {
        (self.schemas, self.paths, self.router)
    }
}
