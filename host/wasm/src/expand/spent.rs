//! What the instantiation of a component takes, counted up to the bounds.

/// The most bytes that the host allocates for all core instances of one instance of a component, beside their memories
/// and tables: for their globals, functions, imports and segments.
const INSTANCE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// The most functions that cross between components, or to the host; each use counts.
const CANONICALS_MAX: u64 = 20_000;
/// The most steps of the instantiation. Copying an instance counts as one step for each thing in it.
pub(super) const STEPS_MAX: u64 = 1_000_000;
/// This many bytes of a name take as long as any other step.
const NAME_BYTES_OF_A_STEP: u64 = 128;

/// A result, or the reason why the component may not be unfolded.
pub(super) type Counted<T> = Result<T, String>;

/// What has been counted so far.
pub(super) struct Spent {
    instances_max: u64,
    instances: u64,
    instance_bytes: u64,
    canonicals: u64,
    resources: u64,
    steps: u64,
}

impl Spent {
    pub(super) fn new(instances_max: u64) -> Self {
        Self { instances_max, instances: 0, instance_bytes: 0, canonicals: 0, resources: 0, steps: 0 }
    }

    pub(super) fn work(&mut self, steps: u64) -> Counted<()> {
        self.steps = self.steps.saturating_add(steps);
        if self.steps > STEPS_MAX {
            return Err(format!("its instantiation takes more than {STEPS_MAX} steps"));
        }
        Ok(())
    }

    /// Something that is found by its name, or gets a name: a long name counts as several steps.
    pub(super) fn look_at(&mut self, name: &str) -> Counted<()> {
        self.work(name.len() as u64 / NAME_BYTES_OF_A_STEP)
    }

    pub(super) fn canonical(&mut self) -> Counted<()> {
        self.canonicals += 1;
        if self.canonicals > CANONICALS_MAX {
            return Err(format!("more than {CANONICALS_MAX} functions and resources cross between its components"));
        }
        Ok(())
    }

    pub(super) fn resource(&mut self) -> Counted<()> {
        self.resources += 1;
        self.canonical()
    }

    /// The resources so far.
    pub(super) fn resources(&self) -> u64 {
        self.resources
    }

    pub(super) fn instance(&mut self) -> Counted<()> {
        self.instances += 1;
        if self.instances > self.instances_max {
            let max = self.instances_max;
            return Err(format!("it is made of more than {max} instances (limit: instances)"));
        }
        Ok(())
    }

    /// An instance of a core module, for which the host allocates this many bytes.
    pub(super) fn core_instance(&mut self, bytes: u64) -> Counted<()> {
        self.instance_bytes = self.instance_bytes.saturating_add(bytes);
        if self.instance_bytes > INSTANCE_BYTES_MAX {
            return Err(format!(
                "the globals, functions, imports and segments of its core instances take more than {INSTANCE_BYTES_MAX} \
                 bytes"
            ));
        }
        Ok(())
    }
}
