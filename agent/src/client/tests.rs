use super::*;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// What a call to a server says that shows a self-signed certificate, which the client trusts.
async fn call_self_signed(is_ca: IsCa) -> Result<StatusCode, String> {
    let _unused = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.is_ca = is_ca;
    let certificate = params.self_signed(&key).unwrap();
    let server = rustls::ServerConfig::builder().with_no_client_auth();
    let private = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
    let server = server.with_single_cert(vec![certificate.der().clone()], private).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = tokio::spawn(async move {
        // A refused handshake ends here; the client says why.
        let (stream, _) = listener.accept().await.unwrap();
        let Ok(mut stream) = acceptor.accept(stream).await else { return };
        let mut head = [0; 4096];
        assert!(stream.read(&mut head).await.unwrap() > 0);
        stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await.unwrap();
        stream.shutdown().await.unwrap();
    });
    let trusted = Certificate::from_pem(certificate.pem().as_bytes()).unwrap();
    let http = reqwest::Client::builder().no_proxy().tls_certs_merge([trusted]).build().unwrap();
    let answer = exchange(http.get(format!("https://localhost:{port}/")), 1024).await;
    serving.await.unwrap();
    answer.map(|(status, _, _)| status)
}

#[tokio::test]
async fn a_certificate_that_is_its_own_authority_is_explained_and_the_advice_helps() {
    let refused = call_self_signed(IsCa::Ca(BasicConstraints::Unconstrained)).await.unwrap_err();
    assert!(refused.contains("CA:FALSE") && refused.contains("DELEGATE_CA_FILE"), "{refused}");
    assert_eq!(call_self_signed(IsCa::ExplicitNoCa).await, Ok(StatusCode::NO_CONTENT));
}
