//! Reading in turns of tenants. A storage that cannot read so says so, and reads in order.

use std::collections::{BTreeMap, BTreeSet};

use outbox_engine::outbox::{Drain, Page, PageBounds, Settled, Share};
use outbox_engine::{EntryId, Field, NewEvent, OutboxStorageStrategy, RawEntry, Row, TenantKey};

use crate::TestStorage;
use crate::helpers::{PAGE, event, outbox, row};

/// Entries of these tenants, one after the other, each in the stream `s`.
fn append_of<S: TestStorage>(kept: &S, tenants: &[(&str, usize)]) -> Vec<i64> {
    let events: Vec<NewEvent> = (tenants.iter())
        .flat_map(|(tenant, number)| (0..*number).map(move |_| event("s", "{}").with_tenant(*tenant)))
        .collect();
    outbox(kept).append(&events).unwrap()
}

/// Reads in turns until a page says that there is nothing to read: each page's entries.
fn pages(drain: &dyn Drain, bounds: PageBounds, share: impl Fn(TenantKey) -> Share) -> Vec<Vec<RawEntry>> {
    let mut pages = Vec::new();
    loop {
        let page = drain.next_page_in_turns(bounds, &mut |tenant| share(tenant), &mut |_, _| true).unwrap();
        assert!(!page.reload);
        if page.end {
            return pages;
        }
        pages.extend(Some(page.entries).filter(|entries| !entries.is_empty()));
    }
}

fn positions(entries: &[RawEntry]) -> Vec<i64> {
    entries.iter().map(|entry| entry.position).collect()
}

fn all_of(drain: &dyn Drain) -> Vec<i64> {
    let mut all = positions(&pages(drain, PAGE, |_| Share::ALL).concat());
    all.sort_unstable();
    all
}

pub fn pages_come_in_turns_of_tenants<S: TestStorage>(kept: &S) {
    kept.index_tenants();
    let p = append_of(kept, &[("a", 3_000), ("b", 3), ("c", 400), ("b", 2)]);
    let strategy = kept.open();
    let drain = strategy.drain().unwrap();
    if !drain.take_turns(0.0).unwrap() {
        return;
    }
    let bounds = PageBounds { read_max: 60, ..PAGE };
    let pages = pages(drain.as_ref(), bounds, |_| Share::ALL);
    let mut read: BTreeMap<TenantKey, Vec<i64>> = BTreeMap::new();
    for page in &pages {
        let tenants: BTreeSet<TenantKey> = page.iter().map(RawEntry::tenant_key).collect();
        assert_eq!(tenants.len(), 1, "a page is of one tenant");
        read.entry(page[0].tenant_key()).or_default().extend(positions(page));
    }
    assert!(read.values().all(|positions| positions.is_sorted()), "each tenant's are in order");
    let mut all: Vec<i64> = read.values().flatten().copied().collect();
    all.sort_unstable();
    assert_eq!(all, p, "each of them once");
    let of = |name: &str| pages.iter().rposition(|page| page[0].tenant_key() == TenantKey::of(name.as_bytes()));
    assert!(of("b").unwrap() < 6 && of("c").unwrap() < 60 && of("a").unwrap() >= 60, "nobody waits for a");
    assert_eq!(all_of(drain.as_ref()), [0_i64; 0]);
}

pub fn a_tenant_without_room_keeps_its_place<S: TestStorage>(kept: &S) {
    kept.index_tenants();
    let p = append_of(kept, &[("a", 10), ("b", 10)]);
    let strategy = kept.open();
    let drain = strategy.drain().unwrap();
    if !drain.take_turns(0.7).unwrap() {
        return;
    }
    let b = TenantKey::of(b"b");
    let bounds = PageBounds { read_max: 4, ..PAGE };
    let only = |room| move |tenant| if tenant == b { Share { room, weight: 1 } } else { Share { room: 0, weight: 1 } };
    let page = drain.next_page_in_turns(bounds, &mut only(1), &mut |_, _| true).unwrap();
    assert_eq!(positions(&page.entries), [p[10]], "no more than it has room for");
    let read = pages(drain.as_ref(), bounds, only(usize::MAX));
    assert_eq!(positions(&read.concat()), p[11..]);
    assert_eq!(all_of(drain.as_ref()), p[..10]);
    // A larger weight gets more at its turn.
    drain.rewind(i64::MIN);
    let heavy = |tenant| Share { room: usize::MAX, weight: if tenant == b { 2 } else { 1 } };
    let read = pages(drain.as_ref(), bounds, heavy);
    assert!(read[..2].iter().all(|page| page.len() == if page[0].tenant_key() == b { 4 } else { 2 }));
}

/// As in order: with lower positions, or after they were passed over; also of tenants that nobody knew.
pub fn what_appears_behind_the_reader_is_found_in_turns_too<S: TestStorage>(kept: &S) {
    kept.index_tenants();
    let p = append_of(kept, &[("a", 2), ("b", 2), ("a", 1)]);
    let strategy = kept.open();
    let drain = strategy.drain().unwrap();
    if !drain.take_turns(0.0).unwrap() {
        return;
    }
    assert_eq!(all_of(drain.as_ref()), p);
    let found = |page: Page| positions(&page.entries);
    let wants = |wanted: i64| move |entry: EntryId, _| entry.position == wanted;
    let look = |wanted: i64| {
        // Some looks may have to pass until everything is looked through.
        for _ in 0..10 {
            let at = drain.look_back_at().unwrap();
            let page = drain.look_back(PAGE, at, &mut wants(wanted)).unwrap();
            if !page.entries.is_empty() {
                return (page.unnoticed, found(page));
            }
        }
        panic!("{wanted} is not found");
    };
    assert_eq!(look(p[3]), (true, vec![p[3]]), "nothing has changed; from time to time it looks all the same");
    drain.changed(false);
    assert_eq!(look(p[0]).1, [p[0]]);
    // What was passed over is wanted after all.
    drain.rewind(p[2]);
    assert_eq!(all_of(drain.as_ref()), p[2..]);
    drain.changed(true);
    assert_eq!(all_of(drain.as_ref()), p);
    // Everything leaves, and others come.
    let entry = |position| strategy.operator().entry(position).unwrap().unwrap().id();
    let settled: Vec<Settled> =
        p.iter().map(|position| Settled::Delivered { entry: entry(*position), tried_before: false }).collect();
    assert_eq!(drain.settle(&settled).unwrap(), 5);
    let more = append_of(kept, &[("c", 2), ("a", 1)]);
    drain.changed(false);
    assert_eq!(all_of(drain.as_ref()), more);
}

pub fn many_new_entries_of_many_tenants_are_read_in_turns<S: TestStorage>(kept: &S) {
    kept.index_tenants();
    let strategy = kept.open();
    let drain = strategy.drain().unwrap();
    if !drain.take_turns(0.3).unwrap() {
        return;
    }
    assert_eq!(all_of(drain.as_ref()), [0_i64; 0]);
    let mut all = Vec::new();
    for round in 0..3 {
        let tenants: Vec<String> = (0..1_500).map(|tenant| format!("t-{tenant}")).collect();
        let several: Vec<(&str, usize)> = tenants.iter().map(|tenant| (tenant.as_str(), 1 + round % 2)).collect();
        let p = append_of(kept, &[vec![("a", 2_000)], several].concat());
        drain.changed(false);
        assert_eq!(all_of(drain.as_ref()), p, "round {round}");
        all.extend(p);
    }
    drain.rewind(i64::MIN);
    assert_eq!(all_of(drain.as_ref()), all);
}

/// They are the same streams, and an entry whose tenant cannot be determined is read too.
pub fn the_spellings_of_a_tenant_are_read_together<S: TestStorage>(kept: &S) {
    kept.loosen();
    kept.index_tenants();
    let spellings: [Field<'_>; 5] =
        [Field::Null, Field::Integer(42), "default".into(), Field::Real(42.0), Field::Bytes(vec![1].into())];
    let p: Vec<i64> =
        (0..50).map(|number| kept.insert(Row { tenant_id: spellings[number % 5].clone(), ..row("s") })).collect();
    let strategy = kept.open();
    let drain = strategy.drain().unwrap();
    if !drain.take_turns(0.0).unwrap() {
        return;
    }
    let pages = pages(drain.as_ref(), PageBounds { read_max: 9, ..PAGE }, |_| Share::ALL);
    for name in ["default", "42"] {
        let of = pages.concat();
        let of: Vec<RawEntry> =
            of.into_iter().filter(|entry| entry.tenant_key() == TenantKey::of(name.as_bytes())).collect();
        assert_eq!(of.len(), 20, "{name}");
        assert!(positions(&of).is_sorted(), "{name}");
    }
    let mut all = positions(&pages.concat());
    all.sort_unstable();
    assert_eq!(all, p);
}
