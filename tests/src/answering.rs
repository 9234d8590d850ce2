//! A destination for tests, within the test: it answers each request as the test says.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

const CHUNKED: &str = "transfer-encoding: chunked\r\n";

/// An HTTP/1.1 server that lives as long as the test's process.
pub struct Answering {
    address: SocketAddr,
    answer: Arc<Mutex<Option<String>>>,
}

impl Answering {
    /// Starts the server. At first it hangs up on each request.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let answer = Arc::<Mutex<Option<String>>>::default();
        let answers = answer.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let answers = answers.clone();
                thread::spawn(move || {
                    // A client may leave at any time.
                    let _ = serve(&stream, &answers);
                });
            }
        });
        Self { address, answer }
    }

    /// Where it listens, without a path.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on it answers so. `headers` are lines without an end.
    pub fn answer(&self, status: u16, headers: &[String], body: &str) {
        let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
        let length = body.len();
        let answer = format!("HTTP/1.1 {status} Told\r\ncontent-length: {length}\r\n{headers}\r\n{body}");
        *self.answer.lock().unwrap() = Some(answer);
    }

    /// From now on it answers with this status, and with a body that goes on until the client is gone.
    pub fn answer_without_end(&self, status: u16) {
        *self.answer.lock().unwrap() = Some(format!("HTTP/1.1 {status} Told\r\n{CHUNKED}\r\n"));
    }

    /// From now on it takes requests in, and hangs up.
    pub fn hang_up(&self) {
        *self.answer.lock().unwrap() = None;
    }
}

fn serve(stream: &TcpStream, answers: &Mutex<Option<String>>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    while take_in(&mut reader)? {
        let Some(answer) = answers.lock().unwrap().clone() else { break };
        (&mut &*stream).write_all(answer.as_bytes())?;
        while answer.contains(CHUNKED) {
            thread::sleep(Duration::from_millis(50));
            (&mut &*stream).write_all(b"1\r\nx\r\n")?;
        }
    }
    Ok(())
}

/// Reads a request with its body; says whether there was one.
fn take_in(reader: &mut impl BufRead) -> io::Result<bool> {
    let mut length = 0;
    for number in 0.. {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(false);
        }
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() && number > 0 {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
    }
    io::copy(&mut reader.take(length), &mut io::sink())?;
    Ok(true)
}
