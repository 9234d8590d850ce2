//! A hostile server for tests: it answers slowly, endlessly, with too much, or not at all.

use std::io::{self, BufRead, BufReader, Write};
use std::mem::forget;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::waiting::until;

/// A server that treats each request as its path says.
pub struct Server {
    pub url: String,
    /// How many connections there are, and how many there were.
    pub open: Arc<AtomicUsize>,
    pub accepted: Arc<AtomicUsize>,
}

impl Server {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (open, accepted) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let server = Self { url, open: open.clone(), accepted: accepted.clone() };
        thread::spawn(move || {
            for stream in listener.incoming() {
                open.fetch_add(1, Ordering::SeqCst);
                accepted.fetch_add(1, Ordering::SeqCst);
                let open = open.clone();
                thread::spawn(move || {
                    // It ends when the client hangs up.
                    let _ = serve(&stream.unwrap());
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        server
    }

    pub fn assert_all_hung_up(&self) {
        until("each connection is closed", || self.open.load(Ordering::SeqCst) == 0);
    }
}

const STATUS: &[u8] = b"HTTP/1.1 200 OK\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const LONG: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 9223372036854775807\r\n\r\n";
const CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
const REDIRECT: &[u8] = b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/inner\r\ncontent-length: 0\r\n\r\n";

fn serve(stream: &TcpStream) -> io::Result<()> {
    let (mut reader, mut writer) = (BufReader::new(stream), stream);
    while let Some(path) = request(&mut reader)? {
        match path.as_str() {
            "/redirect" => writer.write_all(REDIRECT)?,
            "/hang" => return io::copy(&mut reader, &mut io::sink()).map(|_| ()),
            // Stays open for as long as this process lives, and nobody reads what fills its buffers.
            "/deaf" => return stream.try_clone().map(forget),
            "/no-content" => writer.write_all(b"HTTP/1.1 204 No Content\r\n\r\n")?,
            "/ok-in-chunks" => writer.write_all(&[CHUNKED, b"2\r\nok\r\n0\r\n\r\n"].concat())?,
            "/ok-and-deaf" => {
                writer.write_all(OK)?;
                return stream.try_clone().map(forget);
            }
            "/drip" => drip(writer, CHUNKED, b"1\r\nx\r\n")?,
            "/drip-head" => drip(writer, STATUS, b"x")?,
            "/flood" => pour(writer, CHUNKED, &[b"10000\r\n", [b'x'; 0x10000].as_slice(), b"\r\n"].concat())?,
            "/long-line" => pour(writer, STATUS, &[b'x'; 4096])?,
            "/upgrade" => writer.write_all(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n")?,
            "/long" => pour(writer, LONG, &[b'x'; 0x10000])?,
            "/huge-chunk" => pour(writer, CHUNKED, b"fffffffffffffffff\r\n")?,
            "/hints" => pour(writer, b"", b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n")?,
            "/many-headers" => answer_with_headers(writer, 100_000, 1)?,
            "/huge-headers" => answer_with_headers(writer, 20, 10_000)?,
            "/large-headers" => answer_with_headers(writer, 90, 1_000)?,
            _ => writer.write_all(OK)?,
        }
    }
    Ok(())
}

/// The path of the next request; skips the other lines of its head.
fn request(reader: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut line = String::from(&first);
    while !line.trim_end().is_empty() {
        line.clear();
        reader.read_line(&mut line)?;
    }
    Ok(first.split(' ').nth(1).map(str::to_owned))
}

fn drip(mut writer: &TcpStream, head: &[u8], drop: &[u8]) -> io::Result<()> {
    writer.write_all(head)?;
    loop {
        writer.write_all(drop)?;
        thread::sleep(Duration::from_millis(50));
    }
}

fn pour(mut writer: &TcpStream, head: &[u8], part: &[u8]) -> io::Result<()> {
    writer.write_all(head)?;
    loop {
        writer.write_all(part)?;
    }
}

fn answer_with_headers(mut writer: &TcpStream, headers: usize, bytes: usize) -> io::Result<()> {
    let mut answer = STATUS.to_vec();
    for number in 0..headers {
        answer.extend_from_slice(format!("x-{number}: {}\r\n", "v".repeat(bytes)).as_bytes());
    }
    answer.extend_from_slice(b"content-length: 0\r\n\r\n");
    writer.write_all(&answer)
}
