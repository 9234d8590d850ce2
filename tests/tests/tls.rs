//! HTTPS: which certificate authorities are trusted, and through which proxy it goes, as an operator sets them. The server,
//! which has a certificate of a private authority, and the proxy are the test's own; the program is `outbox`.

use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

use outbox_tests::workplace::Workplace;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A private authority, as PEM, and a server with a certificate of it for `localhost`.
fn authority_and_server() -> (String, String) {
    let (authority, port) = authority_and_server_of("localhost", None);
    (authority, format!("https://localhost:{port}"))
}

/// The same for this name, behind a proxy if there is one, at the port that is returned.
fn authority_and_server_of(name: &str, proxy: Option<Proxy>) -> (String, u16) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate().unwrap();
    let authority = params.self_signed(&authority_key).unwrap();
    let issuer = Issuer::new(params, authority_key);
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    (authority.pem(), serve(certificate.der().clone(), key, proxy))
}

/// A proxy that gives this answer, and reports the requests to it.
#[derive(Clone)]
struct Proxy {
    answer: &'static str,
    asked: Sender<String>,
}

impl Proxy {
    /// Whether it made a tunnel.
    async fn tunnel(&self, stream: &mut TcpStream) -> bool {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let Ok(byte) = stream.read_u8().await else { return false };
            head.push(byte);
        }
        self.asked.send(String::from_utf8(head).unwrap()).unwrap();
        let answer = format!("HTTP/1.1 {}\r\n\r\n", self.answer);
        stream.write_all(answer.as_bytes()).await.is_ok() && self.answer.starts_with("200")
    }
}

/// Starts a server that answers 200 to each request, and returns its address.
fn serve(certificate: CertificateDer<'static>, key: PrivateKeyDer<'static>, proxy: Option<Proxy>) -> u16 {
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let acceptor = TlsAcceptor::from(Arc::new(config.with_single_cert(vec![certificate], key).unwrap()));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, acceptor.clone(), proxy.clone()));
            }
        });
    });
    port
}

async fn answer(mut stream: TcpStream, acceptor: TlsAcceptor, proxy: Option<Proxy>) {
    if let Some(proxy) = proxy
        && !proxy.tunnel(&mut stream).await
    {
        return;
    }
    let Ok(mut stream) = acceptor.accept(stream).await else { return };
    let mut request = vec![0; 64 * 1024];
    while matches!(stream.read(&mut request).await, Ok(1..)) {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    }
}

/// One pass over one event, with this in `[publisher]`.
fn run(url: &str, setting: &str, prepare: impl FnOnce(&Workplace, &mut Command)) -> Output {
    let place = Workplace::new();
    place.append(r#"{"stream_id": "s", "name": "order.paid", "data": {}}"#);
    let publisher = format!("[publisher]\nallow_http = [\"{url}\"]\nenv = {{ WEBHOOK_URL = \"{url}\" }}\n{setting}\n");
    place.write("outbox.toml", publisher);
    let arguments = "run --json --db app.db --config outbox.toml --publisher guests/rust-webhook.wasm";
    let mut command = place.command(arguments);
    for variable in ["SSL_CERT_FILE", "SSL_CERT_DIR", "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"] {
        command.env_remove(variable);
    }
    prepare(&place, &mut command);
    command.output().unwrap()
}

fn assert_delivered(output: &Output) {
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(printed.contains(r#""published": 1"#), "{printed} {}", String::from_utf8_lossy(&output.stderr));
}

fn assert_not_delivered(output: &Output, why: &str) {
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!String::from_utf8_lossy(&output.stdout).contains(r#""published": 1"#) && told.contains(why), "{told}");
}

#[test]
fn a_private_authority_is_trusted_where_tls_ca_file_names_it() {
    let (authority, url) = authority_and_server();
    let unknown = run(&url, "", |_, _| ());
    assert_not_delivered(&unknown, r#"to trust a certificate authority of your own: tls = { ca_file = "FILE.pem" }"#);
    // The path is relative to the configuration file's folder.
    assert_delivered(&run(&url, r#"tls = { ca_file = "private.pem" }"#, |place, _| {
        place.write("private.pem", &authority)
    }));
}

#[test]
fn the_systems_authorities_are_those_that_ssl_cert_file_names() {
    let (authority, url) = authority_and_server();
    assert_delivered(&run(&url, "", |place, command| {
        place.write("system.pem", &authority);
        command.env("SSL_CERT_FILE", place.path("system.pem"));
    }));
    let missing = run(&url, "", |_, command| {
        command.env("SSL_CERT_FILE", "/no/such/file.pem");
    });
    assert_not_delivered(&missing, "SSL_CERT_FILE names no certificate authority");
    let both = run(&url, r#"tls = { ca_file = "private.pem" }"#, |place, command| {
        place.write("private.pem", &authority);
        command.env("SSL_CERT_FILE", "/no/such/file.pem");
    });
    assert_delivered(&both);
}

#[test]
fn a_file_that_holds_no_authority_is_refused_before_anything_is_sent() {
    let (_, url) = authority_and_server();
    let setting = r#"tls = { ca_file = "private.pem" }"#;
    let damaged = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for text in ["", "no PEM", damaged] {
        let output = run(&url, setting, |place, _| place.write("private.pem", text));
        assert_not_delivered(&output, "it holds no certificates that can be used");
        assert_not_delivered(&output, "private.pem");
    }
    assert_not_delivered(&run(&url, setting, |_, _| ()), "private.pem");
}

/// A certificate for another name, and a server whose authority nobody knows, are told apart from a network that fails.
#[test]
fn a_certificate_for_another_name_is_refused() {
    let (authority, url) = authority_and_server();
    let url = url.replace("localhost", "127.0.0.1");
    let output = run(&url, r#"tls = { ca_file = "private.pem" }"#, |place, _| place.write("private.pem", &authority));
    assert_not_delivered(&output, "TLS: invalid peer certificate: certificate not valid for name");
}

/// A destination that this machine knows no address of.
const OUTSIDE: &str = "https://hooks.outside.test";

/// Makes one pass with this proxy. Returns the requests to the proxy.
fn run_through(answer: &'static str, proxy: impl FnOnce(u16) -> String) -> (Output, Vec<String>) {
    let (asked, asks) = channel();
    let (authority, port) = authority_and_server_of("hooks.outside.test", Some(Proxy { answer, asked }));
    let output = run(OUTSIDE, r#"tls = { ca_file = "private.pem" }"#, |place, command| {
        place.write("private.pem", &authority);
        command.env("HTTPS_PROXY", proxy(port));
    });
    (output, asks.try_iter().collect())
}

#[test]
fn https_goes_through_the_proxy_that_the_environment_names() {
    let (output, asked) = run_through("200 Connection established", |port| format!("http://127.0.0.1:{port}"));
    assert_delivered(&output);
    assert_eq!(asked, ["CONNECT hooks.outside.test:443 HTTP/1.1\r\nhost: hooks.outside.test:443\r\n\r\n"]);

    let (output, asked) = run_through("200 OK", |port| format!("http://user:s3cret@127.0.0.1:{port}/"));
    assert_delivered(&output);
    assert!(asked[0].ends_with("\r\nproxy-authorization: Basic dXNlcjpzM2NyZXQ=\r\n\r\n"), "{asked:?}");
}

#[test]
fn a_proxy_that_makes_no_tunnel_is_named_with_its_answer() {
    let (output, asked) = run_through("407 No", |port| format!("http://user:s3cret@127.0.0.1:{port}"));
    assert_not_delivered(&output, "(HTTPS_PROXY) answered 407 to CONNECT hooks.outside.test:443");
    assert!(!String::from_utf8_lossy(&output.stderr).contains("s3cret"));
    assert_eq!(asked.len(), 1);
}

#[test]
fn a_proxy_of_another_kind_is_refused_before_anything_is_sent() {
    let (output, _) = run_through("200 OK", |port| format!("socks5://user:s3cret@127.0.0.1:{port}"));
    assert_not_delivered(&output, "HTTPS_PROXY cannot be used: only http:// proxies are supported");
    assert!(!String::from_utf8_lossy(&output.stderr).contains("s3cret"));
}

#[test]
fn what_is_inside_needs_no_proxy() {
    let (authority, url) = authority_and_server();
    assert_delivered(&run(&url, r#"tls = { ca_file = "private.pem" }"#, |place, command| {
        place.write("private.pem", &authority);
        command.env("HTTPS_PROXY", "http://127.0.0.1:1");
    }));
}
