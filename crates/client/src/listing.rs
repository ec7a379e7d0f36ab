//! Lists: one page, or all of them.

use crate::{Client, ClientError, http::Call, model::Page};
use serde::de::DeserializeOwned;
use std::marker::PhantomData;

/// A list that is about to be requested.
#[derive(Debug, Clone)]
#[must_use = "a listing does nothing until `page` or `all` is called"]
pub struct Listing<T> {
    client: Client,
    path: String,
    query: Vec<(String, String)>,
    items: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Listing<T> {
    pub(crate) fn new(client: &Client, path: impl Into<String>) -> Self {
        Self { client: client.clone(), path: path.into(), query: Vec::new(), items: PhantomData }
    }

    /// Adds a filter or another query parameter.
    pub fn query(mut self, name: &str, value: impl ToString) -> Self {
        self.query.push((name.to_owned(), value.to_string()));
        self
    }

    /// Items per page.
    pub fn limit(self, items: u32) -> Self {
        self.query("limit", items)
    }

    /// The page behind `cursor`, or the first.
    pub async fn page(&self, cursor: Option<&str>) -> Result<Page<T>, ClientError> {
        let mut query = self.query.clone();
        query.extend(cursor.map(|c| ("cursor".to_owned(), c.to_owned())));
        self.client.json(&Call::get(self.path.as_str(), &query)).await
    }

    /// Every item of every page.
    pub async fn all(&self) -> Result<Vec<T>, ClientError> {
        let mut page = self.page(None).await?;
        let mut items = Vec::new();
        loop {
            items.append(&mut page.items);
            match page.next_cursor {
                None => return Ok(items),
                Some(cursor) => page = self.page(Some(&cursor)).await?,
            }
        }
    }
}
