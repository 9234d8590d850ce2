//! Decides to which publishers an entry goes.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::column;
use crate::publisher::Publisher;
use crate::publisher_options::PublisherOptions;
use crate::raw::RawEntry;

/// The most publishers of one outbox.
pub const PUBLISHERS_MAX: usize = 64;

/// What an outbox publishes with: one publisher for every entry, or several with routes.
///
/// ```
/// use outbox_engine::{JsonSerde, MemoryOutbox, NewEvent, Outbox, Publishers, Recorded, Route, StreamId};
///
/// let (webhook, audit) = (|_: &Recorded| Ok(()), |_: &Recorded| Ok(()));
/// let orders = Route { name: Some("order.*".parse().unwrap()), ..Route::to(["webhook", "audit"]) };
/// let publishers = Publishers::routed([("webhook", &webhook as _), ("audit", &audit as _)], [orders, Route::to(["audit"])])?;
///
/// let outbox = Outbox::new(MemoryOutbox::default(), JsonSerde);
/// outbox.append(&[NewEvent::json(StreamId::new("order-42"), "order.placed", "{}")])?;
/// assert_eq!(outbox.run(publishers, None)?.published, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Publishers<'a> {
    members: Vec<Member<'a>>,
    /// None if every entry goes to the only publisher.
    routes: Option<Vec<(Route, PublisherSet)>>,
}

#[derive(Clone)]
struct Member<'a> {
    /// None for a single publisher, which needs no name.
    name: Option<Arc<str>>,
    publisher: &'a dyn Publisher,
    options: PublisherOptions,
}

/// Which entries go to which publishers. An entry takes the first route all of whose patterns match it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The event's name. None matches any.
    pub name: Option<Pattern>,
    /// The stream's category. A pattern matches no stream without one.
    pub category: Option<Pattern>,
    /// The tenant.
    pub tenant: Option<Pattern>,
    /// The names of the publishers. Each gets the event, and the entry is removed when each has it.
    pub publishers: Vec<String>,
    /// Whether the entry is removed without a call, and never becomes a dead letter. Such a route has no publishers.
    pub drop: bool,
}

/// What becomes of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Destination {
    /// It goes to these publishers; to none if no route matches it.
    Publishers(PublisherSet),
    /// The route with this number, from 1, drops it.
    Dropped { route: usize },
}

/// A text in which `*` stands for anything: `order.*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(String);

/// Why publishers and routes do not fit together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRoutes {
    /// A route names a publisher that does not exist.
    #[error("route {route}: unknown publisher `{publisher}` (known: {known})")]
    UnknownPublisher {
        /// The route's number, from 1.
        route: usize,
        /// The name.
        publisher: String,
        /// The names that exist.
        known: String,
    },
    /// A route that leads nowhere.
    #[error("route {route} names no publisher")]
    NoPublisher {
        /// The route's number, from 1.
        route: usize,
    },
    /// A route that drops what it matches, and leads to a publisher all the same.
    #[error("route {route} drops what it matches, and names publishers: it can do only one of both")]
    DropsAndPublishes {
        /// The route's number, from 1.
        route: usize,
    },
    /// Two publishers have the same name.
    #[error("there are two publishers named `{0}`")]
    Twice(String),
    /// More than [`PUBLISHERS_MAX`].
    #[error("there are {0} publishers, and an outbox may have {PUBLISHERS_MAX}")]
    TooMany(usize),
}

/// Some of the publishers of an outbox.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct PublisherSet(u64);

impl<'a> Publishers<'a> {
    /// One publisher, to which every entry goes.
    pub fn one(publisher: &'a dyn Publisher) -> Self {
        Self { members: vec![Member { name: None, publisher, options: PublisherOptions::default() }], routes: None }
    }

    /// Several publishers with their names, and the routes to them. The first route that matches is taken. An entry
    /// that no route matches becomes a dead letter: nothing is dropped unless a route says so.
    ///
    /// # Errors
    ///
    /// [`InvalidRoutes`].
    pub fn routed<'n>(
        publishers: impl IntoIterator<Item = (&'n str, &'a dyn Publisher)>,
        routes: impl IntoIterator<Item = Route>,
    ) -> Result<Self, InvalidRoutes> {
        let mut members: Vec<Member<'a>> = Vec::new();
        for (name, publisher) in publishers {
            if members.iter().any(|member| member.name.as_deref() == Some(name)) {
                return Err(InvalidRoutes::Twice(name.to_owned()));
            }
            members.push(Member { name: Some(name.into()), publisher, options: PublisherOptions::default() });
        }
        if members.len() > PUBLISHERS_MAX {
            return Err(InvalidRoutes::TooMany(members.len()));
        }
        let mut publishers = Self { members, routes: None };
        let routes = (1..).zip(routes).map(|(number, route)| {
            let legs = publishers.legs_of(number, &route)?;
            Ok((route, legs))
        });
        publishers.routes = Some(routes.collect::<Result<_, _>>()?);
        Ok(publishers)
    }

    /// Has the relay call the publisher of this name with these options. A single publisher, which needs no name, is meant
    /// by any. Nothing changes if there is none of this name.
    #[must_use]
    pub fn with_options(mut self, name: &str, options: PublisherOptions) -> Self {
        let is_meant = |member: &&mut Member<'a>| member.name.as_deref().is_none_or(|own| own == name);
        self.members.iter_mut().filter(is_meant).for_each(|member| member.options = options.clone());
        self
    }

    fn legs_of(&self, number: usize, route: &Route) -> Result<PublisherSet, InvalidRoutes> {
        let mut legs = PublisherSet::NONE;
        for name in &route.publishers {
            let Some(leg) = self.named(name) else {
                let known: Vec<&str> = self.members.iter().filter_map(|member| member.name.as_deref()).collect();
                let (publisher, known) = (name.clone(), known.join(", "));
                return Err(InvalidRoutes::UnknownPublisher { route: number, publisher, known });
            };
            legs = legs | PublisherSet::one(leg);
        }
        match (legs.is_empty(), route.drop) {
            (true, false) => Err(InvalidRoutes::NoPublisher { route: number }),
            (false, true) => Err(InvalidRoutes::DropsAndPublishes { route: number }),
            _ => Ok(legs),
        }
    }

    /// Where this entry goes.
    pub(crate) fn route(&self, entry: &RawEntry) -> Destination {
        let Some(routes) = &self.routes else { return Destination::Publishers(PublisherSet::one(0)) };
        let row = entry.row();
        // A value that cannot be decoded matches no pattern; its entry is set aside, whatever its route.
        let (name, category) = (column::optional(&row.name), column::optional(&row.category));
        let tenant = column::tenant_id(&row.tenant_id).ok();
        let is_readable = name.as_ref().is_ok_and(Option::is_some) && category.is_ok() && tenant.is_some();
        let (name, category) = (name.ok().flatten(), category.ok().flatten());
        let matches = |route: &Route| {
            let is = |pattern: &Option<Pattern>, text: Option<&str>| {
                pattern.as_ref().is_none_or(|pattern| text.is_some_and(|text| pattern.matches(text)))
            };
            is(&route.name, name.as_deref())
                && is(&route.category, category.as_deref())
                && is(&route.tenant, tenant.as_deref())
        };
        match (1..).zip(routes).find(|(_, (route, _))| matches(route)) {
            // Another route might be the one that is meant for it.
            Some((_, (Route { drop: true, .. }, _))) if !is_readable => Destination::Publishers(PublisherSet::NONE),
            Some((route, (Route { drop: true, .. }, _))) => Destination::Dropped { route },
            found => Destination::Publishers(found.map_or(PublisherSet::NONE, |(_, (_, legs))| *legs)),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// All of them.
    pub(crate) fn all(&self) -> PublisherSet {
        (0..self.len()).fold(PublisherSet::NONE, |legs, leg| legs | PublisherSet::one(leg))
    }

    /// All of them, with their numbers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, &'a dyn Publisher)> {
        self.members.iter().map(|member| member.publisher).enumerate()
    }

    /// How to call it.
    pub(crate) fn options(&self, leg: usize) -> Option<&PublisherOptions> {
        self.members.get(leg).map(|member| &member.options)
    }

    /// Its name. None for a single publisher, which needs no name.
    pub(crate) fn name(&self, leg: usize) -> Option<&Arc<str>> {
        self.members.get(leg)?.name.as_ref()
    }

    pub(crate) fn named(&self, name: &str) -> Option<usize> {
        self.members.iter().position(|member| member.name.as_deref() == Some(name))
    }

    /// The names of some of them.
    pub(crate) fn names(&self, legs: PublisherSet) -> Vec<Arc<str>> {
        legs.iter().filter_map(|leg| self.name(leg).cloned()).collect()
    }
}

impl<'a> From<&'a dyn Publisher> for Publishers<'a> {
    fn from(publisher: &'a dyn Publisher) -> Self {
        Self::one(publisher)
    }
}

impl<'a, P: Publisher> From<&'a P> for Publishers<'a> {
    fn from(publisher: &'a P) -> Self {
        Self::one(publisher)
    }
}

impl Route {
    /// A route that matches every entry.
    pub fn to<N: Into<String>>(publishers: impl IntoIterator<Item = N>) -> Self {
        let publishers = publishers.into_iter().map(Into::into).collect();
        Self { name: None, category: None, tenant: None, publishers, drop: false }
    }

    /// A route that matches every entry, and drops it.
    pub fn dropping() -> Self {
        Self { drop: true, ..Self::to(Vec::<String>::new()) }
    }
}

impl FromStr for Pattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("a pattern is empty: leave it out to match anything".into());
        }
        Ok(Self(text.to_owned()))
    }
}

impl Pattern {
    /// Whether the pattern matches the whole text.
    pub fn matches(&self, text: &str) -> bool {
        let Some((first, rest)) = self.0.split_once('*') else { return self.0 == text };
        let Some(mut text) = text.strip_prefix(first) else { return false };
        let mut parts = rest.split('*').peekable();
        while let Some(part) = parts.next() {
            // The last part must be at the end; every other part is matched as early as possible.
            if parts.peek().is_none() {
                return text.ends_with(part);
            }
            let Some(at) = text.find(part) else { return false };
            text = text.get(at + part.len()..).unwrap_or_default();
        }
        true
    }
}

impl PublisherSet {
    pub(crate) const NONE: Self = Self(0);

    pub(crate) fn one(leg: usize) -> Self {
        Self(1_u64.checked_shl(u32::try_from(leg).unwrap_or(u32::MAX)).unwrap_or(0))
    }

    pub(crate) fn of_bits(bits: u64) -> Self {
        Self(bits)
    }

    pub(crate) fn bits(self) -> u64 {
        self.0
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub(crate) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub(crate) fn both(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = usize> {
        let mut bits = self.0;
        std::iter::from_fn(move || {
            let leg = (bits != 0).then(|| bits.trailing_zeros() as usize);
            bits &= bits.wrapping_sub(1);
            leg
        })
    }

    pub(crate) fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// The only publisher. None if there are several, or none.
    pub(crate) fn only(self) -> Option<usize> {
        (self.0.count_ones() == 1).then(|| self.0.trailing_zeros() as usize)
    }
}

impl std::ops::BitOr for PublisherSet {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Debug for PublisherSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorded::Recorded;
    use crate::row::{Field, Row};

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, text, expected) in [
            ("order.placed", "order.placed", true),
            ("order.placed", "order.placed2", false),
            ("order.*", "order.placed", true),
            ("order.*", "order.", true),
            ("order.*", "orders", false),
            ("*", "", true),
            ("*.placed", "order.placed", true),
            ("*.placed", "order.placed.late", false),
            ("a*b*c", "abc", true),
            ("a*b*c", "a--b--b--c", true),
            ("a*b*c", "acb", false),
            ("a*a", "a", false),
            ("**", "x", true),
            ("ü*", "über", true),
        ] {
            assert_eq!(pattern.parse::<Pattern>().unwrap().matches(text), expected, "{pattern} {text}");
        }
        assert!("".parse::<Pattern>().is_err());
    }

    fn entry(name: &str, category: Option<&str>, tenant: Option<&str>) -> RawEntry {
        let (tenant_id, stream_id, category, name) = (tenant.into(), "s".into(), category.into(), name.into());
        RawEntry::new(1, &Row { tenant_id, stream_id, category, name, ..Row::default() })
    }

    #[test]
    fn the_first_route_that_matches_is_taken() {
        let nothing = |_: &Recorded| Ok(());
        let pattern = |text: &str| Some(text.parse().unwrap());
        let routes = [
            Route { tenant: pattern("acme"), ..Route::to(["a", "b"]) },
            Route { name: pattern("order.*"), category: pattern("order"), ..Route::to(["b"]) },
            Route { tenant: pattern("default"), name: pattern("hello"), ..Route::to(["a"]) },
        ];
        let publishers = Publishers::routed([("a", &nothing as _), ("b", &nothing as _)], routes).unwrap();
        let (a, b) = (PublisherSet::one(0), PublisherSet::one(1));
        let goes = |entry: &RawEntry, to| assert_eq!(publishers.route(entry), Destination::Publishers(to));
        goes(&entry("x", None, Some("acme")), a | b);
        goes(&entry("order.placed", Some("order"), Some("other")), b);
        goes(&entry("order.placed", None, Some("other")), PublisherSet::NONE);
        goes(&entry("hello", None, None), a);
    }

    #[test]
    fn a_route_that_drops_takes_what_it_matches_if_it_is_the_first() {
        let nothing = |_: &Recorded| Ok(());
        let debug = || Route { name: Some("debug.*".parse().unwrap()), ..Route::dropping() };
        let routed = |routes: Vec<Route>| Publishers::routed([("a", &nothing as _)], routes).unwrap();
        let noise = entry("debug.noise", None, None);
        let (a, none) = (Destination::Publishers(PublisherSet::one(0)), Destination::Publishers(PublisherSet::NONE));
        assert_eq!(routed(vec![debug(), Route::to(["a"])]).route(&noise), Destination::Dropped { route: 1 });
        assert_eq!(routed(vec![debug(), Route::to(["a"])]).route(&entry("x", None, None)), a);
        assert_eq!(routed(vec![Route::to(["a"]), debug()]).route(&noise), a);
        assert_eq!(routed(vec![debug()]).route(&entry("x", None, None)), none);
        // What cannot be read might be meant for another route.
        let rest = routed(vec![Route { tenant: Some("acme".parse().unwrap()), ..Route::to(["a"]) }, Route::dropping()]);
        assert_eq!(rest.route(&noise), Destination::Dropped { route: 2 });
        assert_eq!(
            rest.route(&RawEntry::new(1, &Row { tenant_id: Field::Bytes(vec![0xff].into()), ..noise.row() })),
            none
        );
        assert_eq!(rest.route(&RawEntry::new(1, &Row { stream_id: "s".into(), ..Row::default() })), none);
        let both = Route { drop: true, ..Route::to(["a"]) };
        let refused = Publishers::routed([("a", &nothing as _)], [both]).map(|_| ()).unwrap_err();
        assert_eq!(refused, InvalidRoutes::DropsAndPublishes { route: 1 });
    }

    #[test]
    fn routes_lead_to_publishers_that_there_are() {
        let nothing = |_: &Recorded| Ok(());
        let routed = |names: &[&'static str], to: &[&str]| {
            let publishers: Vec<_> = names.iter().map(|name| (*name, &nothing as &dyn Publisher)).collect();
            Publishers::routed(publishers, [Route::to(to.iter().copied())]).map(|_| ()).unwrap_err().to_string()
        };
        let unknown = "route 1: unknown publisher `c` (known: a, b)";
        assert_eq!(routed(&["a", "b"], &["a", "c"]), unknown);
        assert_eq!(routed(&["a"], &[]), "route 1 names no publisher");
        assert_eq!(routed(&["a", "a"], &["a"]), "there are two publishers named `a`");
        assert!(routed(&["a"; 65], &["a"]).contains("two publishers"));
    }
}
