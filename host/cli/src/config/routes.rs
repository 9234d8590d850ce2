//! `[[route]]`: which entries go to which publishers.

use std::str::FromStr;

use outbox_host::{Pattern, Route};
use serde::{Deserialize, Deserializer, de};

/// A route with its `publisher` or its `publishers`, or one that drops what it matches.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RouteTable")]
pub struct RouteConfig(Route);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RouteTable {
    #[serde(default)]
    r#match: Match,
    publisher: Option<String>,
    publishers: Option<Vec<String>>,
    #[serde(default)]
    drop: bool,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Match {
    #[serde(deserialize_with = "pattern")]
    name: Option<Pattern>,
    #[serde(deserialize_with = "pattern")]
    category: Option<Pattern>,
    #[serde(deserialize_with = "pattern")]
    tenant: Option<Pattern>,
}

fn pattern<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Pattern>, D::Error> {
    Pattern::from_str(&String::deserialize(deserializer)?).map(Some).map_err(de::Error::custom)
}

impl TryFrom<RouteTable> for RouteConfig {
    type Error = &'static str;

    fn try_from(table: RouteTable) -> Result<Self, Self::Error> {
        let publishers = match (table.publisher, table.publishers, table.drop) {
            (Some(publisher), None, false) => vec![publisher],
            (None, Some(publishers), false) if !publishers.is_empty() => publishers,
            (None, None, true) => Vec::new(),
            (_, _, true) => return Err("a route with `drop = true` leads to no publisher: leave one of both out"),
            _ => {
                return Err(
                    "a route has either `publisher = \"NAME\"` or `publishers = [\"NAME\", ...]`, or `drop = true` to \
                            have its entries removed without a call",
                );
            }
        };
        let Match { name, category, tenant } = table.r#match;
        Ok(Self(Route { name, category, tenant, publishers, drop: table.drop }))
    }
}

impl RouteConfig {
    pub fn route(&self) -> &Route {
        &self.0
    }
}
