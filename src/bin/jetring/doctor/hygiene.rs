//! Credentials and their files, and who could read what passes between us and the server.

use super::finding::Finding;
use super::gather::Facts;
use jetring::spool::{self, Leftover};
use jetring::{Auth, Config, SecretSource, Server, Servers};
use std::net::{IpAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

/// What a network on the way could see.
#[derive(Debug, Default)]
pub(super) struct Exposure {
    /// Servers on other machines, by address, to which TLS is not demanded.
    pub(super) plaintext: Vec<String>,
    /// What is sent to them to prove who we are.
    pub(super) proof: Proof,
    /// Whether the URL has a password or a token.
    pub(super) in_url: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Proof {
    #[default]
    None,
    /// A password or a token, which whoever reads it can use.
    Secret,
    /// A signature of the server's question, which is of use to nobody else later.
    Signature,
}

/// A file with a secret.
#[derive(Debug)]
pub(super) struct SecretFile {
    pub(super) path: PathBuf,
    /// Its permission bits, or why they cannot be read.
    pub(super) mode: Result<u32, String>,
}

pub(super) async fn exposure(config: &Config, servers: &Servers) -> Exposure {
    let in_url = servers.iter().any(|server| server.user.is_some());
    let proof = match &config.auth {
        Auth::None if !in_url => Proof::None,
        Auth::None | Auth::User { .. } | Auth::Token(_) => Proof::Secret,
        // Whatever comes: it is named in the configuration in order to prove who we are.
        _ => Proof::Signature,
    };
    let mut plaintext = Vec::new();
    for server in servers {
        if !server.tls && !config.tls.first && !is_here(server).await {
            plaintext.push(server.address());
        }
    }
    Exposure { plaintext, proof, in_url }
}

/// Whether a server is on this machine, by all the addresses that it has.
async fn is_here(server: &Server) -> bool {
    if let Ok(address) = server.host.parse::<IpAddr>() {
        return address.is_loopback();
    }
    let name = (server.host.clone(), server.port);
    let addresses = tokio::task::spawn_blocking(move || name.to_socket_addrs().map(Vec::from_iter)).await;
    matches!(addresses, Ok(Ok(all)) if !all.is_empty() && all.iter().all(|address| address.ip().is_loopback()))
}

/// The files that hold secrets: those that the configuration names, and its own file if a secret of it is in there.
pub(super) fn secret_files(config: &Config, servers: &Servers, file: Option<&Path>) -> Vec<SecretFile> {
    let (mut paths, mut values) = (Vec::new(), Vec::new());
    match &config.auth {
        Auth::Creds(path) | Auth::Nkey(path) | Auth::Jwt { seed: path, .. } => paths.push(path.clone()),
        Auth::User { password: secret, .. } | Auth::Token(secret) => match secret {
            SecretSource::File(path) => paths.push(path.clone()),
            SecretSource::Value(secret) => values.push(secret.reveal().to_owned()),
            _ => {}
        },
        _ => {}
    }
    for server in servers {
        match (&server.password, &server.user) {
            (Some(password), _) => values.push(password.reveal().to_owned()),
            (None, Some(token)) => values.push(token.clone()),
            (None, None) => {}
        }
    }
    paths.extend(config.tls.key.clone());
    let text = file.and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
    let holds_one = values.iter().any(|value| !value.is_empty() && text.contains(value.as_str()));
    paths.extend(file.filter(|_| holds_one).map(Path::to_owned));
    paths.into_iter().map(|path| SecretFile { mode: mode(&path), path }).collect()
}

fn mode(path: &Path) -> Result<u32, String> {
    use std::os::unix::fs::PermissionsExt;
    let metadata = std::fs::metadata(path).map_err(|error| error.to_string())?;
    Ok(metadata.permissions().mode() & 0o7777)
}

pub(super) fn examine(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![transport(facts)];
    if facts.exposure.in_url {
        findings.push(
            Finding::warning("auth.url", "the URL has a password or a token in it")
                .why("URLs end up in process lists, shell histories, logs and tickets")
                .remedy("give it as auth.password-file or auth.token-file, or in the environment (NATS_PASSWORD, NATS_TOKEN)"),
        );
    }
    findings.extend(facts.files.iter().map(examine_file));
    findings
}

/// What a bus with another number of partitions has left.
pub(super) fn leftovers(config: &Config) -> Vec<Finding> {
    const ID: &str = "spool.leftovers";
    let found = match spool::leftovers(config) {
        Ok(found) => found,
        Err(error) => {
            return vec![Finding::warning(ID, format!("the directory of the spool cannot be read: {error}"))];
        }
    };
    let streams = config.streams();
    let finding = |left: Leftover| {
        let Leftover { directory, events, stream, partition, .. } = left;
        let to = &streams[partition].name;
        Finding::note(
            ID,
            format!(
                "{events} events of another number of partitions wait in {}; they were for {stream}",
                directory.display()
            ),
        )
        .why(format!(
            "the next bus with this configuration sends them to {to}, under the names that they have there"
        ))
    };
    found.into_iter().map(finding).collect()
}

fn transport(facts: &Facts) -> Finding {
    const ID: &str = "connection.tls";
    let Exposure { plaintext, proof, .. } = &facts.exposure;
    if plaintext.is_empty() {
        return Finding::ok(ID, "each server is on this machine, or TLS is demanded of it");
    }
    let what = format!("TLS is not demanded of {}", plaintext.join(", "));
    let remedy = "write tls:// in place of nats:// in url, with tls.ca if the server's certificate is of an authority of your own";
    let server_asks = facts.server().is_some_and(|server| server.requires_tls);
    match (proof, server_asks) {
        (Proof::Secret, false) => Finding::error(ID, format!("{what}, and the password or token goes there readable"))
            .why("whoever sees the network's traffic can publish and read as this client"),
        (Proof::Secret, true) => Finding::warning(ID, format!("{what}; the server asks for TLS, but it is the server who decides"))
            .why("whoever answers in the server's place, and does not ask for TLS, gets the password or token"),
        (Proof::Signature, _) => Finding::warning(ID, what)
            .why("the seed stays here, but whoever is in between can read the events, and publish on this connection"),
        (Proof::None, _) => Finding::note(ID, what).why("whoever is in between can read and change the events"),
    }
    .remedy(remedy)
}

fn examine_file(SecretFile { path, mode }: &SecretFile) -> Finding {
    const ID: &str = "auth.file";
    let path = path.display();
    match mode {
        Err(error) => Finding::error(ID, format!("{path} cannot be read: {error}"))
            .why("files with secrets are read at each connect, so there will be no connection")
            .remedy("put it there, readable for the user that the service runs as"),
        Ok(mode) if mode & 0o006 != 0 => Finding::warning(
            ID,
            format!("{path} has mode {mode:04o}: everybody on this machine can read or change it"),
        )
        .why("it holds a secret by which one can publish as this client")
        .remedy(format!("chmod 600 {path}, or 640 with a group of its own")),
        Ok(mode) => Finding::ok(ID, format!("{path} has mode {mode:04o}")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity;
    use super::*;
    use jetring::nats::inspect::ServerFacts;

    fn severity(proof: Proof, plaintext: &[&str]) -> Severity {
        let plaintext = plaintext.iter().map(|&address| address.to_owned()).collect();
        let exposure = Exposure { plaintext, proof, in_url: false };
        transport(&Facts { exposure, ..Facts::default() }).severity
    }

    #[test]
    fn plaintext_matters_as_much_as_what_can_be_read() {
        assert_eq!(severity(Proof::Secret, &[]), Severity::Ok);
        assert_eq!(severity(Proof::None, &["nats://a:4222"]), Severity::Note);
        assert_eq!(severity(Proof::Signature, &["nats://a:4222"]), Severity::Warning);
        assert_eq!(severity(Proof::Secret, &["nats://a:4222"]), Severity::Error);
    }

    #[test]
    fn a_server_that_asks_for_tls_is_not_one_of_whom_it_is_demanded() {
        let mut server = ServerFacts::default();
        server.requires_tls = true;
        let address = "nats://a:4222".to_owned();
        let exposure = Exposure { plaintext: vec![address.clone()], proof: Proof::Secret, in_url: false };
        let facts = Facts { servers: vec![(address, Ok(server))], exposure, ..Facts::default() };
        assert_eq!(transport(&facts).severity, Severity::Warning);
    }

    #[test]
    fn a_file_for_everybody_is_found_and_one_for_a_group_is_not() {
        let severity = |mode| examine_file(&SecretFile { path: "a.creds".into(), mode }).severity;
        assert_eq!([0o600, 0o640, 0o400].map(|mode| severity(Ok(mode))), [Severity::Ok; 3]);
        assert_eq!([0o644, 0o602].map(|mode| severity(Ok(mode))), [Severity::Warning; 2]);
        assert_eq!(severity(Err("No such file".to_owned())), Severity::Error);
    }
}
