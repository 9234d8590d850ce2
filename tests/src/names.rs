//! A name server for tests, and programs that use it instead of the machine's own.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Where name servers listen.
const PORT: u16 = 53;

/// A server that never answers for names that start with `slow`, and gives 127.0.0.1 for all others. It lives as long
/// as the test's process.
pub struct NameServer {
    ip: IpAddr,
    asked: Arc<AtomicUsize>,
}

impl NameServer {
    /// Starts it at an address of its own. None if this user may not listen on the port of name servers, or may not
    /// give a program another `/etc/resolv.conf`.
    pub fn start() -> Option<Self> {
        let may_mount = Command::new("unshare").args(["-m", "true"]).status().is_ok_and(|status| status.success());
        let ip = Ipv4Addr::from((127 << 24) + (std::process::id() & 0xFF_FFFF) + 256);
        let socket = UdpSocket::bind((ip, PORT)).ok().filter(|_| may_mount)?;
        let asked = Arc::<AtomicUsize>::default();
        let count = asked.clone();
        thread::spawn(move || {
            let mut buffer = [0; 1_500];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                count.fetch_add(1, Ordering::SeqCst);
                answer(&buffer[..length]).into_iter().for_each(|answer| drop(socket.send_to(&answer, from)));
            }
        });
        Some(Self { ip: ip.into(), asked })
    }

    /// How many questions it has received.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// This command, with the server for its names; its process is the one that is started. What has to be written for it
    /// is written into `folder`.
    pub fn asked_by(&self, command: &Command, folder: &Path) -> Command {
        let file = folder.join("resolv.conf");
        fs::write(&file, format!("nameserver {}\n", self.ip)).unwrap();
        let script = "mount --bind \"$1\" /etc/resolv.conf && shift && exec \"$@\"";
        let mut asking = Command::new("unshare");
        asking.args(["-m", "sh", "-c", script, "sh"]).arg(file).arg(command.get_program()).args(command.get_args());
        asking.current_dir(command.get_current_dir().unwrap_or(folder));
        asking.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        asking
    }
}

fn answer(question: &[u8]) -> Option<Vec<u8>> {
    let end = 12 + question.get(12..)?.iter().position(|byte| *byte == 0)? + 5;
    let (asked, kind) = (question.get(12..end)?, *question.get(end - 3)?);
    if asked[1..].starts_with(b"slow") {
        return None;
    }
    let answers = u8::from(kind == 1);
    let mut answer = [&[question[0], question[1], 0x81, 0x80, 0, 1, 0, answers, 0, 0, 0, 0], asked].concat();
    if answers == 1 {
        answer.extend_from_slice(&[0xC0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
    }
    Some(answer)
}
