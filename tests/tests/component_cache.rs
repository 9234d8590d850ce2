//! Compiled code is kept from one start to the next, and files that were changed are not used.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use outbox_host::publisher::component::{ComponentPublisher, Settings};
use outbox_tests::guest;
use outbox_tests::workplace::Workplace;
use tempfile::TempDir;

/// A folder that is not there yet, in one that is.
fn folder() -> (TempDir, PathBuf) {
    let place = tempfile::tempdir().unwrap();
    let cache = place.path().join("cache/outbox");
    (place, cache)
}

fn load(name: &str, cache: &Path) -> ComponentPublisher {
    ComponentPublisher::load(&guest(name), Settings { cache: Some(cache.into()), ..Settings::default() }).unwrap()
}

fn timed(name: &str, cache: &Path) -> (ComponentPublisher, Duration) {
    let started = Instant::now();
    (load(name, cache), started.elapsed())
}

fn files(cache: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(cache).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// The one file of a cache.
fn file(cache: &Path) -> PathBuf {
    let files = files(cache);
    assert_eq!(files.len(), 1, "{files:?}");
    files[0].clone()
}

fn assert_works(publisher: &ComponentPublisher) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(publisher.warm_up()).unwrap();
}

/// Loads it twice: the first time it is compiled again, and then the file is good.
fn assert_replaced(cache: &Path, what: &str) {
    let anew = load("noop", cache);
    assert!(!anew.is_from_cache(), "{what} was used");
    let again = load("noop", cache);
    assert!(again.is_from_cache(), "{what} was not replaced");
    assert_works(&again);
}

#[test]
fn the_second_start_does_not_compile() {
    let (_place, cache) = folder();
    let (first, compiled) = timed("rust-webhook", &cache);
    let (second, found) = timed("rust-webhook", &cache);
    println!("rust-webhook: compiled in {compiled:?}, from the cache in {found:?}");
    assert!(!first.is_from_cache() && second.is_from_cache());
    assert_eq!(first.digest(), second.digest());
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!((mode(&cache), mode(&file(&cache))), (0o700, 0o600));
    assert!(file(&cache).file_name().unwrap().to_str().unwrap().starts_with(&**first.digest()));
}

#[test]
fn each_component_has_a_file_of_its_own() {
    let (_place, cache) = folder();
    assert!(!load("noop", &cache).is_from_cache());
    assert!(!load("scripted", &cache).is_from_cache());
    assert_eq!(files(&cache).len(), 2);
    assert!(load("noop", &cache).is_from_cache() && load("scripted", &cache).is_from_cache());
    assert_works(&load("scripted", &cache));
}

#[test]
fn a_file_that_is_not_as_it_was_written_is_compiled_anew_and_replaced() {
    let (_place, cache) = folder();
    load("noop", &cache);
    let file = file(&cache);
    let good = fs::read(&file).unwrap();
    for position in [0, 20, 48, 60, good.len() / 2, good.len() - 1] {
        let mut flipped = good.clone();
        flipped[position] ^= 1;
        fs::write(&file, flipped).unwrap();
        assert_replaced(&cache, &format!("a file with byte {position} flipped"));
    }
    for length in [0, 10, 48, good.len() - 1] {
        fs::write(&file, &good[..length]).unwrap();
        assert_replaced(&cache, &format!("a file of {length} bytes"));
    }
    fs::write(&file, [good.as_slice(), b"more"].concat()).unwrap();
    assert_replaced(&cache, "a file with more at its end");
    assert_eq!(files(&cache).len(), 1, "nothing is left behind");
}

#[test]
fn the_code_of_another_component_is_not_taken_for_its_own() {
    let (_place, cache) = folder();
    load("scripted", &cache);
    let other = fs::read(file(&cache)).unwrap();
    fs::remove_file(file(&cache)).unwrap();
    load("noop", &cache);
    fs::write(file(&cache), other).unwrap();
    assert_replaced(&cache, "another component's file");
}

#[test]
fn a_file_that_others_may_write_to_is_compiled_anew_and_so_are_a_link_and_a_pipe() {
    let (place, cache) = folder();
    load("noop", &cache);
    let file = file(&cache);
    fs::set_permissions(&file, Permissions::from_mode(0o666)).unwrap();
    assert_replaced(&cache, "a file for all to write to");
    let elsewhere = place.path().join("elsewhere");
    fs::rename(&file, &elsewhere).unwrap();
    symlink(&elsewhere, &file).unwrap();
    assert_replaced(&cache, "a link");
    fs::remove_file(&file).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &file, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
    assert_replaced(&cache, "a pipe");
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What is logged on this thread meanwhile.
fn logged(work: impl FnOnce()) -> String {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _guard = tracing_subscriber::util::SubscriberInitExt::set_default(subscriber);
    work();
    let bytes = log.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn a_folder_that_others_may_write_to_is_not_used_and_the_publisher_is_compiled() {
    let (_place, cache) = folder();
    load("noop", &cache);
    for mode in [0o770, 0o707, 0o777, 0o720] {
        fs::set_permissions(&cache, Permissions::from_mode(mode)).unwrap();
        let said = logged(|| {
            let publisher = load("noop", &cache);
            assert!(!publisher.is_from_cache(), "mode {mode:o}");
            assert_works(&publisher);
        });
        assert!(said.contains("WARN") && said.contains(&format!("others may write to it (mode {mode:o}")), "{said}");
    }
    fs::set_permissions(&cache, Permissions::from_mode(0o755)).unwrap();
    assert!(load("noop", &cache).is_from_cache());
}

#[test]
fn a_folder_that_is_none_costs_a_warning() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("a-file");
    fs::write(&path, "").unwrap();
    let said = logged(|| assert!(!load("noop", &path).is_from_cache()));
    assert!(said.contains("compiled code is not kept"), "{said}");
}

#[test]
fn only_so_many_files_are_kept() {
    let (_place, cache) = folder();
    load("noop", &cache);
    let kept = file(&cache);
    for number in 0..70 {
        fs::write(cache.join(format!("old-{number}.cwasm")), "").unwrap();
    }
    fs::write(cache.join("notes.txt"), "not ours").unwrap();
    load("scripted", &cache);
    assert_eq!(files(&cache).len(), 65);
    assert!(cache.join("notes.txt").exists() && load("scripted", &cache).is_from_cache(), "{}", kept.display());
}

#[test]
fn the_command_line_has_a_folder_too() {
    let place = Workplace::new();
    place.write("outbox.toml", "db = \"app.db\"\n[publisher]\nfile = \"guests/noop.wasm\"\ncache = \"configured\"\n");
    place.outbox("run --config outbox.toml --no-cache").ok();
    assert!(!place.path("configured").exists());
    place.outbox("run --config outbox.toml").ok();
    assert_eq!(files(&place.path("configured")).len(), 1);
    place.outbox("run --config outbox.toml --cache told").ok();
    assert_eq!(files(&place.path("told")).len(), 1);
    assert_eq!(place.outbox("run --config outbox.toml --cache told --no-cache").code, Some(1));
}
