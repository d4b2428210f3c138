//! Over TLS.

use std::sync::Arc;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;

use super::client::{connect, parts, soon};
use super::serving::Serving;
use super::spdy_client::SpdyClient;
use crate::{StreamConfig, StreamError, TlsFiles};

#[tokio::test]
async fn sessions_are_served_over_tls() {
    let directory = tempfile::tempdir().unwrap();
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let files = TlsFiles {
        certificate: directory.path().join("tls.crt"),
        key: directory.path().join("tls.key"),
    };
    std::fs::write(&files.certificate, cert.pem()).unwrap();
    std::fs::write(&files.key, signing_key.serialize_pem()).unwrap();
    let config = StreamConfig {
        tls: Some(files),
        ..StreamConfig::default()
    };
    let serving = Serving::with(config).await;
    let url = serving.exec("io", &["hash"]);
    assert!(url.starts_with("https://"), "{url}");

    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let connector = TlsConnector::from(Arc::new(client));
    let mut stream = connector.connect(name, connect(&url).await).await.unwrap();
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\
         X-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n",
        parts(&url).1
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(soon("the answer", stream.read_u8()).await.unwrap());
    }
    assert!(answer.starts_with(b"HTTP/1.1 101 "));
    let mut client = SpdyClient::new(stream);
    let streams = client.open_types(&["error", "stdin", "stdout"]).await;
    client.data(streams[1], super::spdy_client::FIN, b"").await;
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    assert_eq!(client.rest().await.text(streams[2]), empty);
}

#[tokio::test]
async fn certificates_that_cannot_be_read_are_told_of() {
    let config = StreamConfig {
        tls: Some(TlsFiles {
            certificate: "/nonexistent/tls.crt".into(),
            key: "/nonexistent/tls.key".into(),
        }),
        ..StreamConfig::default()
    };
    let commands = Arc::new(super::backend::Commands::default());
    let error = crate::Server::bind(config, commands).await.unwrap_err();
    assert!(matches!(error, StreamError::TlsFile { .. }), "{error}");
    assert!(
        error.to_string().contains("/nonexistent/tls.crt"),
        "{error}"
    );
}
