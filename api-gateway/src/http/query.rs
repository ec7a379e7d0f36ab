//! Query parameters, strictly: unknown ones, repeated ones and wrong types are refused by name, because `?limt=5` that is ignored is a
//! list somebody believes in. The usual urlencoded deserialiser can neither name the parameter nor take a repeated one as a list.

use crate::failure::ApiError;
use axum::extract::FromRequestParts;
use domain::Problem;
use http::request::Parts;
use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeOwned, IntoDeserializer, Visitor, value::MapDeserializer},
    forward_to_deserialize_any,
};
use std::{borrow::Cow, fmt};

/// `T` derives Deserialize with `deny_unknown_fields`; a `Vec` field takes a parameter that may be given several times.
pub struct Query<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        parse(parts.uri.query().unwrap_or("")).map(Self).map_err(ApiError::from)
    }
}

/// The first value of a parameter, for what is looked up before the route's own parameters are read (`project`).
#[must_use]
pub fn find<'a>(query: Option<&'a str>, name: &str) -> Option<Cow<'a, str>> {
    form_urlencoded::parse(query?.as_bytes()).find(|(key, _)| key == name).map(|(_, value)| value)
}

pub fn parse<T: DeserializeOwned>(query: &str) -> Result<T, Problem> {
    let mut grouped: Vec<(Cow<'_, str>, Param<'_>)> = Vec::new();
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        match grouped.iter_mut().find(|(k, _)| *k == key) {
            Some((_, param)) => param.values.push(value),
            None => grouped.push((key.clone(), Param { name: key, values: vec![value] })),
        }
    }
    T::deserialize(MapDeserializer::new(grouped.into_iter())).map_err(|e: QueryError| match e.field {
        Some(field) => Problem::invalid(field, e.message),
        None => Problem::new(domain::ErrorKind::InvalidArgument, "invalid_argument", format!("query: {}", e.message)),
    })
}

#[derive(Clone)]
struct Param<'a> {
    name: Cow<'a, str>,
    values: Vec<Cow<'a, str>>,
}

#[derive(Debug)]
struct QueryError {
    field: Option<String>,
    message: String,
}

impl fmt::Display for QueryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for QueryError {}

impl de::Error for QueryError {
    fn custom<M: fmt::Display>(message: M) -> Self {
        Self { field: None, message: message.to_string() }
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        let shown: String = field.chars().take(64).collect();
        Self {
            field: Some(shown),
            message: format!("there is no such parameter; the parameters are: {}", expected.join(", ")),
        }
    }
}

impl<'de, 'a: 'de> IntoDeserializer<'de, QueryError> for Param<'a> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl Param<'_> {
    fn one(&self) -> Result<&str, QueryError> {
        match self.values.as_slice() {
            [value] => Ok(value),
            _ => Err(self.error("given more than once")),
        }
    }

    fn error(&self, message: impl Into<String>) -> QueryError {
        QueryError { field: Some(self.name.chars().take(64).collect()), message: message.into() }
    }

    fn named(&self, mut error: QueryError) -> QueryError {
        error.field.get_or_insert_with(|| self.name.chars().take(64).collect());
        error
    }
}

macro_rules! numbers {
    ($($method:ident $visit:ident $ty:ty),+) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, QueryError> {
            let number = self.one()?.parse::<$ty>().map_err(|_| self.error("a whole number in range is expected"))?;
            visitor.$visit(number).map_err(|e| self.named(e))
        }
    )+};
}

impl<'de> Deserializer<'de> for Param<'_> {
    type Error = QueryError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, QueryError> {
        visitor.visit_str(self.one()?).map_err(|e| self.named(e))
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, QueryError> {
        match self.one()? {
            "true" => visitor.visit_bool(true),
            "false" => visitor.visit_bool(false),
            _ => Err(self.error("true or false is expected")),
        }
    }

    numbers!(deserialize_u16 visit_u16 u16, deserialize_u32 visit_u32 u32, deserialize_u64 visit_u64 u64,
             deserialize_i32 visit_i32 i32, deserialize_i64 visit_i64 i64);

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, QueryError> {
        visitor.visit_some(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, QueryError> {
        let name = self.name.clone();
        let each = self.values.into_iter().map(|value| Param { name: name.clone(), values: vec![value] });
        // Owned, so that the items live as long as the visitor wants.
        let items: Vec<Param<'_>> = each.collect();
        visitor.visit_seq(Items(items.into_iter()))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, QueryError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, QueryError> {
        let text = self.one()?.to_owned();
        visitor.visit_enum(text.into_deserializer()).map_err(|e| self.named(e))
    }

    forward_to_deserialize_any! {
        i8 i16 u8 i128 u128 f32 f64 char str string bytes byte_buf unit unit_struct tuple tuple_struct map struct identifier
        ignored_any
    }
}

struct Items<'a>(std::vec::IntoIter<Param<'a>>);

impl<'de> de::SeqAccess<'de> for Items<'_> {
    type Error = QueryError;

    fn next_element_seed<T: de::DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, QueryError> {
        self.0.next().map(|param| seed.deserialize(param)).transpose()
    }
}

/// The query of routes that take no parameter but `project`.
#[derive(Debug, Clone, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ProjectParams {
    /// Id or name of the project; else the header `X-Iaas-Project`, the API key's, or your home project.
    pub project: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Filter {
        limit: Option<u32>,
        name: Option<String>,
        #[serde(default)]
        tag: Vec<String>,
        #[serde(default)]
        all: bool,
        power: Option<domain::instance::Power>,
    }

    #[test]
    fn takes_what_is_declared() {
        let filter: Filter = parse("limit=5&tag=a%3Ab&tag=c&all=true&power=off").expect("valid");
        let expected = Filter {
            limit: Some(5),
            name: None,
            tag: vec!["a:b".into(), "c".into()],
            all: true,
            power: Some(domain::instance::Power::Off),
        };
        assert_eq!(filter, expected);
        assert_eq!(find(Some("a=1&project=x%20y"), "project").as_deref(), Some("x y"));
    }

    #[test]
    fn names_what_is_wrong() {
        for (query, field) in [
            ("limt=5", "limt"),
            ("limit=five", "limit"),
            ("limit=-1", "limit"),
            ("limit=1&limit=2", "limit"),
            ("all=yes", "all"),
            ("power=maybe", "power"),
        ] {
            let problem = parse::<Filter>(query).expect_err(query);
            assert_eq!(problem.errors.first().map(|e| e.field.as_str()), Some(field), "{query}: {problem:?}");
        }
    }
}
