//! Starting and stopping the servers that are measured, each on a folder of its own, with the settings that make the
//! comparison fair.

use std::{
    fmt,
    fs::File,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
    str::FromStr,
    time::{Duration, Instant},
};

use antipode_proto::api::workflowservice::v1::GetSystemInfoRequest;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::{
    api::{self, within},
    clock,
    error::{Error, Result},
};

/// How long a server may take until it answers.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long it may take to stop when asked.
const GRACE: Duration = Duration::from_secs(20);

/// A server program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// Ours: the path of the binary.
    Antipode(PathBuf),
    /// The peer: the path of the `temporal` command.
    Temporal(PathBuf),
    /// The generator's own stub, for its ceilings.
    Stub,
}

/// Whether acknowledged writes are on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Durability {
    /// Every acknowledged write is synced.
    #[default]
    Durable,
    /// Nothing is kept.
    Memory,
}

impl FromStr for Program {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let wrong = |why| Error::Program { name: name.to_string(), why };
        match name.split_once(':') {
            Some(("antipode", path)) if !path.is_empty() => Ok(Self::Antipode(path.into())),
            Some(("temporal", path)) if !path.is_empty() => Ok(Self::Temporal(path.into())),
            None if name == "stub" => Ok(Self::Stub),
            _ => Err(wrong("is none of antipode:PATH, temporal:PATH, stub")),
        }
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Antipode(_) => "Antipode",
            Self::Temporal(_) => "Temporal",
            Self::Stub => "stub",
        })
    }
}

/// Settings of the peer that lift its limits (`filetuned`, `memtuned`): with the defaults its queues are read twenty
/// times a second, whatever the processor could do.
const TEMPORAL_DYNAMIC: [&str; 10] = [
    "history.transferProcessorMaxPollRPS=5000",
    "history.timerProcessorMaxPollRPS=5000",
    "history.visibilityProcessorMaxPollRPS=5000",
    "history.rps=1000000",
    "matching.rps=1000000",
    "frontend.rps=1000000",
    "frontend.namespaceRPS=1000000",
    "frontend.namespaceRPS.visibility=1000000",
    "frontend.namespaceBurstRatio=2.0",
    "frontend.namespaceCount=100000",
];

impl Program {
    fn command(&self, folder: &Path, port: u16, durability: Durability) -> Result<Command> {
        let durable = durability == Durability::Durable;
        let command = match self {
            Self::Antipode(path) => {
                let mut command = Command::new(path);
                command.args(["dev", "--regions", "1", "--log", "error"]);
                command.arg("--base-port").arg(port.to_string());
                if durable {
                    command.arg("--data-dir").arg(folder.join("data"));
                } else {
                    command.arg("--in-memory");
                }
                command
            }
            Self::Temporal(path) => {
                let mut command = Command::new(path);
                command.args([
                    "server",
                    "start-dev",
                    "--headless",
                    "--log-level",
                    "error",
                    "--ip",
                    "127.0.0.1",
                ]);
                command.arg("--port").arg(port.to_string());
                for value in TEMPORAL_DYNAMIC {
                    command.arg("--dynamic-config-value").arg(value);
                }
                if durable {
                    command.arg("--db-filename").arg(folder.join("temporal.db"));
                    command.args(["--sqlite-pragma", "journal_mode=WAL"]);
                    command.args(["--sqlite-pragma", "synchronous=FULL"]);
                }
                command
            }
            Self::Stub => {
                let own = std::env::current_exe().map_err(Error::file("/proc/self/exe"))?;
                let mut command = Command::new(own);
                command.arg("stub").arg("--port").arg(port.to_string());
                command
            }
        };
        Ok(command)
    }

    fn path(&self) -> String {
        match self {
            Self::Antipode(path) | Self::Temporal(path) => path.display().to_string(),
            Self::Stub => "stub".to_string(),
        }
    }

    /// What the program says about its version; its path when it says nothing.
    pub async fn version(&self) -> String {
        let (Self::Antipode(path) | Self::Temporal(path)) = self else { return "stub".to_string() };
        let said = Command::new(path).arg("--version").stdin(Stdio::null()).output().await;
        let said = said.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_string());
        said.ok().filter(|said| !said.is_empty()).unwrap_or_else(|| self.to_string())
    }
}

/// A folder for one server's data, removed when dropped.
///
/// # Errors
/// When it cannot be made.
pub fn fresh_folder(parent: &Path) -> Result<TempDir> {
    std::fs::create_dir_all(parent).map_err(Error::file(parent))?;
    tempfile::Builder::new().prefix("antipode-bench-").tempdir_in(parent).map_err(Error::file(parent))
}

/// Distance from the gRPC port to the port of our metrics.
const METRICS_PORT_OFFSET: u16 = 90;

/// A port that is free now, and the one of the metrics too.
///
/// # Errors
/// When the system has none.
pub fn free_port() -> Result<u16> {
    let address = "127.0.0.1:0";
    let mut tried = Vec::new();
    loop {
        let held = TcpListener::bind(address).map_err(Error::file(address))?;
        let port = held.local_addr().map_err(Error::file(address))?.port();
        let metrics = port.checked_add(METRICS_PORT_OFFSET);
        if metrics.is_some_and(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            return Ok(port);
        }
        // Kept open, so that the system offers another one.
        tried.push(held);
    }
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    program: String,
    child: Child,
    log: PathBuf,
    port: u16,
    /// The moment just before the program was executed.
    pub executed: Instant,
}

impl Server {
    /// Executes the program on a folder; it need not answer yet.
    ///
    /// # Errors
    /// When it cannot be executed.
    pub fn launch(program: &Program, folder: &Path, durability: Durability) -> Result<Self> {
        let port = free_port()?;
        Self::spawn(program.path(), program.command(folder, port, durability)?, folder, port)
    }

    /// Executes one of our nodes with a configuration file.
    ///
    /// # Errors
    /// When it cannot be executed.
    pub fn node(binary: &Path, config: &Path, folder: &Path, port: u16) -> Result<Self> {
        let mut command = Command::new(binary);
        command.arg("start").arg("--config").arg(config);
        Self::spawn(binary.display().to_string(), command, folder, port)
    }

    fn spawn(program: String, mut command: Command, folder: &Path, port: u16) -> Result<Self> {
        let log = folder.join("server.log");
        let out = File::options().create(true).append(true).open(&log).map_err(Error::file(&log))?;
        let err = out.try_clone().map_err(Error::file(&log))?;
        command.current_dir(folder).stdin(Stdio::null()).stdout(out).stderr(err).kill_on_drop(true);
        let executed = clock::now();
        match command.spawn() {
            Ok(child) => Ok(Self { program, child, log, port, executed }),
            Err(source) => Err(Error::Launch { program, source }),
        }
    }

    /// Address of its gRPC port.
    #[must_use]
    pub fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Process id, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Why a measurement failed, if it failed because the server is gone.
    pub fn obituary(&mut self, error: Error) -> Error {
        match self.child.try_wait() {
            Ok(Some(status)) => Error::NotReady {
                program: self.program.clone(),
                last: format!("it ended with {status} ({error})"),
                words: self.last_words(),
            },
            _ => error,
        }
    }

    fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }

    /// Waits until GetSystemInfo succeeds; answers the time since the program was executed.
    ///
    /// # Errors
    /// When the program ends or does not answer in time.
    pub async fn answers(&mut self) -> Result<Duration> {
        let address = self.address();
        loop {
            let last = match api::dial(&address).await {
                Ok(channel) => {
                    let request = within(Duration::from_secs(5), GetSystemInfoRequest {});
                    match api::client(channel).get_system_info(request).await {
                        Ok(_) => return Ok(self.executed.elapsed()),
                        Err(status) => status.to_string(),
                    }
                }
                Err(error) => error.to_string(),
            };
            self.still_starting(last)?;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Whether it is worth asking again.
    ///
    /// # Errors
    /// When the program ended or its time is up.
    pub fn still_starting(&mut self, last: String) -> Result<()> {
        let ended = self.child.try_wait().ok().flatten();
        if ended.is_none() && self.executed.elapsed() < PATIENCE {
            return Ok(());
        }
        let last = ended.map_or(last, |status| status.to_string());
        Err(Error::NotReady { program: self.program.clone(), last, words: self.last_words() })
    }

    /// Waits until it answers and knows the namespace.
    ///
    /// # Errors
    /// When the program ends or its time is up.
    pub async fn ready(&mut self, namespace: &str) -> Result<()> {
        self.answers().await?;
        loop {
            match api::Api::connect(&self.address(), namespace, 1).await {
                Ok(_) => return Ok(()),
                Err(error) => self.still_starting(error.to_string())?,
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Asks it to stop, as Ctrl-C or a service manager does, and waits; answers how long it took.
    ///
    /// # Errors
    /// When it had to be killed.
    pub async fn stop(mut self) -> Result<Duration> {
        let asked = clock::now();
        if let Some(pid) = self.child.id().and_then(|pid| Pid::from_raw(pid.cast_signed())) {
            // Gone already is as good.
            let _gone = kill_process(pid, Signal::TERM);
        }
        match tokio::time::timeout(GRACE, self.child.wait()).await {
            Ok(ended) => ended.map(|_| asked.elapsed()).map_err(Error::file(&self.log)),
            Err(_) => {
                self.child.kill().await.map_err(Error::file(&self.log))?;
                let last = format!("was asked to stop and had to be killed after {} s", GRACE.as_secs());
                Err(Error::NotReady { program: self.program.clone(), last, words: self.last_words() })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_named_with_their_path() {
        assert_eq!(
            "antipode:/x/antipode".parse::<Program>().unwrap(),
            Program::Antipode("/x/antipode".into())
        );
        assert_eq!("temporal:t".parse::<Program>().unwrap(), Program::Temporal("t".into()));
        assert_eq!("stub".parse::<Program>().unwrap(), Program::Stub);
        for wrong in ["", "antipode", "antipode:", "stub:x", "/x/antipode"] {
            assert!(wrong.parse::<Program>().is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_program_that_ends_at_once_is_reported_with_its_last_words() {
        let folder = fresh_folder(&std::env::temp_dir()).unwrap();
        let program = Program::Antipode("/bin/ls".into());
        let mut server = Server::launch(&program, folder.path(), Durability::Durable).unwrap();
        let error = server.answers().await.unwrap_err().to_string();
        assert!(error.contains("exit status"), "{error}");
        assert!(error.contains("ls: "), "{error}");
    }
}
