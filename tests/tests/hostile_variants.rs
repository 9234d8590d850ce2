//! Components that are hard to read, from `src/unfolding/variants.rs`: each is refused, or is a publisher, and none
//! takes the program's memory or ends the program.

use std::process::Stdio;
use std::time::{Duration, Instant};

use outbox_tests::memory::{self, MIB};
use outbox_tests::unfolding::{self, Hostile};
use outbox_tests::workplace::{Ran, Workplace};

/// What the program may take up for a component: five times of what that may have, for reading it, writing it down, and all
/// else.
const PROGRAM_BYTES_MAX: usize = 5 * 64 * MIB;
/// How long a refusal may take that compiles nothing, on a machine that does much else.
const REFUSAL_TIME_MAX: Duration = Duration::from_secs(20);

/// Runs a command. Returns its peak of memory, and its result.
fn run(place: &Workplace, arguments: &str) -> (Ran, usize) {
    let mut child = place.start(arguments, Stdio::null());
    let (pid, mut most) = (child.id(), 0);
    while child.try_wait().unwrap().is_none() {
        most = memory::highest_of(pid).unwrap_or_default().max(most);
        std::thread::sleep(Duration::from_millis(2));
    }
    (Ran::new(arguments, child.wait_with_output().unwrap()), most)
}

#[test]
fn each_is_refused_or_is_a_publisher_and_the_program_stays_within_its_bounds() {
    let (place, mut faults) = (Workplace::new(), Vec::new());
    for Hostile { name, bytes, says } in unfolding::variants() {
        place.write("it.wasm", &bytes);
        for command in ["publisher inspect it.wasm", "publisher deploy it it.wasm --db app.db"] {
            let began = Instant::now();
            let (ran, most) = run(&place, command);
            let (took, said) = (began.elapsed(), ran.stderr.trim_end().to_owned());
            let what = format!("{name}: {command}: {} KB, {took:?}, {} MiB, {said}", bytes.len() / 1_000, most / MIB);
            println!("{what}");
            let as_said = !command.contains("deploy") || said.contains(says);
            let in_time = says.is_empty() || took < REFUSAL_TIME_MAX;
            if !(matches!(ran.code, Some(0 | 1)) && most < PROGRAM_BYTES_MAX && as_said && in_time) {
                faults.push(what);
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}
