//! Refuses growth beyond a publisher's limits on memory and tables, and remembers it.

use wasmtime::ResourceLimiter;

use super::settings::Limits;

/// The most tables of one instance. They share one budget of elements; this bounds what an empty one costs.
const TABLES_MAX: usize = 100;
const MIB: usize = 1024 * 1024;
/// The most memories of one instance. They share one budget of bytes; this bounds the address space that they reserve.
const MEMORIES_MAX: usize = 20;

/// Watches the growth of one instance's memories and tables. It remembers a refusal, so that the trap which mostly
/// follows is reported as this limit.
#[derive(Debug)]
pub(super) struct Limiter {
    memory: Budget,
    tables: Budget,
    instances: usize,
    refused: Option<String>,
}

impl Limiter {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            memory: Budget::new(limits.memory_bytes),
            tables: Budget::new(limits.table_elements),
            instances: limits.instances,
            refused: None,
        }
    }

    /// The size of the memories, which never shrink.
    pub(super) fn memory_bytes(&self) -> usize {
        self.memory.used
    }

    /// The refusal since the last call of this function.
    pub(super) fn take_refused(&mut self) -> Option<String> {
        self.refused.take()
    }
}

/// An amount that grows up to a limit.
#[derive(Debug)]
struct Budget {
    used: usize,
    max: usize,
    /// The growth allowed last: given back when it fails for another reason.
    last: usize,
}

impl Budget {
    fn new(max: usize) -> Self {
        Self { used: 0, max, last: 0 }
    }

    fn grow(&mut self, current: usize, desired: usize) -> bool {
        let growth = desired.saturating_sub(current);
        let used = self.used.saturating_add(growth);
        if used > self.max {
            return false;
        }
        self.used = used;
        self.last = growth;
        true
    }

    fn give_back(&mut self) {
        self.used = self.used.saturating_sub(std::mem::take(&mut self.last));
    }
}

/// Names the limit and a value to set: mostly twice as much is enough; if not, the message comes again.
fn too_much_memory(max: usize) -> String {
    let twice = max.div_ceil(MIB).saturating_mul(2).max(1);
    format!(
        "the guest asked for more than its {max} bytes of memory (limit: memory_mib) — to give it more: \
         [publisher.limits] memory_mib = {twice}"
    )
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        let allowed = self.memory.grow(current, desired);
        if !allowed {
            self.refused = Some(too_much_memory(self.memory.max));
        }
        Ok(allowed)
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.memory.give_back();
        Ok(())
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        let allowed = self.tables.grow(current, desired);
        if !allowed {
            let max = self.tables.max;
            self.refused =
                Some(format!("the guest asked for more than its {max} table elements (limit: table_elements)"));
        }
        Ok(allowed)
    }

    fn table_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.tables.give_back();
        Ok(())
    }

    fn instances(&self) -> usize {
        self.instances
    }

    fn tables(&self) -> usize {
        TABLES_MAX
    }

    fn memories(&self) -> usize {
        MEMORIES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memories_share_one_budget_and_a_refusal_is_remembered_once() {
        let limits = Limits { memory_bytes: 100, ..Limits::default() };
        let mut limiter = Limiter::new(&limits);
        assert!(limiter.memory_growing(0, 60, None).unwrap());
        assert!(!limiter.memory_growing(0, 60, None).unwrap());
        let refused = limiter.take_refused().unwrap();
        assert!(refused.contains("100 bytes of memory") && refused.ends_with("memory_mib = 2"), "{refused}");
        assert!(limiter.take_refused().is_none());
        assert!(limiter.memory_growing(60, 100, None).unwrap());
    }

    #[test]
    fn a_failed_growth_is_given_back() {
        let limits = Limits { memory_bytes: 100, ..Limits::default() };
        let mut limiter = Limiter::new(&limits);
        assert!(limiter.memory_growing(0, 100, None).unwrap());
        limiter.memory_grow_failed(wasmtime::Error::msg("no memory")).unwrap();
        assert!(limiter.memory_growing(0, 100, None).unwrap());
    }

    #[test]
    fn the_modules_own_maximum_is_no_limit_of_ours() {
        let mut limiter = Limiter::new(&Limits::default());
        assert!(!limiter.memory_growing(0, 60, Some(50)).unwrap());
        assert!(limiter.take_refused().is_none());
    }
}
