//! Pages of lists that are read whole because they are short.

use store::Page;

/// The items, ordered by `id`, that are on the page.
pub fn on_page<T>(items: Vec<T>, page: &Page, id: impl Fn(&T) -> String) -> Vec<T> {
    let after = page.after.as_deref().unwrap_or_default();
    items.into_iter().filter(|item| id(item).as_str() > after).take(page.limit as usize).collect()
}
