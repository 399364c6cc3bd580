//! Several replicas of every role as processes, each started again when it ends by itself, as a cluster does. A test kills,
//! stops and starts them as it likes.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use tokio::task::{JoinHandle, block_in_place};

use crate::child::{Child, log_tail};
use crate::roles::Role;
use crate::servers::free_port;

/// How often it is looked who has ended.
const LOOK: Duration = Duration::from_millis(50);

/// One process of a role.
#[derive(Debug, Clone)]
pub struct Replica {
    /// `delivery-2`.
    pub name: String,
    /// Its role.
    pub role: Role,
    /// Where its gRPC answers.
    pub grpc: SocketAddr,
    /// Where its HTTP answers, if the role has one.
    pub http: SocketAddr,
    /// Where its metrics and health answer.
    pub ops: SocketAddr,
    /// Its settings, beside the sockets.
    pub environment: Vec<(String, String)>,
    /// Another binary than that of the fleet.
    pub binary: Option<PathBuf>,
}

impl Replica {
    /// A replica on free ports.
    ///
    /// # Errors
    /// No port is free.
    pub fn new(role: Role, number: u32) -> anyhow::Result<Self> {
        let socket = || free_port().map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        Ok(Self {
            name: format!("{}-{number}", role.as_str()),
            role,
            grpc: socket()?,
            http: socket()?,
            ops: socket()?,
            environment: Vec::new(),
            binary: None,
        })
    }

    /// `http://host:port` of its gRPC.
    #[must_use]
    pub fn grpc_url(&self) -> String {
        format!("http://{}", self.grpc)
    }

    /// `http://host:port` of its HTTP.
    #[must_use]
    pub fn http_url(&self) -> String {
        format!("http://{}", self.http)
    }
}

/// A replica's place: its process comes and goes.
pub struct Member {
    replica: Replica,
    binary: PathBuf,
    log: PathBuf,
    child: tokio::sync::Mutex<Option<Child>>,
    exits: Mutex<Vec<i32>>,
}

/// A member in somebody's hands: nobody else touches it meanwhile, and it is not started again.
pub struct Held<'a> {
    member: &'a Member,
    child: tokio::sync::MutexGuard<'a, Option<Child>>,
}

impl Member {
    /// What it is a process of.
    #[must_use]
    pub const fn replica(&self) -> &Replica {
        &self.replica
    }

    /// Waits until nobody else has it in hands.
    pub async fn hold(&self) -> Held<'_> {
        Held { member: self, child: self.child.lock().await }
    }

    /// The exit codes with which it has ended by itself, as a shell tells them.
    #[must_use]
    pub fn exits(&self) -> Vec<i32> {
        self.exits.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Its log: everything that it printed, over all its lives.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The end of its log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        log_tail(&self.log)
    }

    /// Whether it wants traffic; else what it says instead.
    ///
    /// # Errors
    /// What it answered, or that it did not.
    pub async fn ready(&self) -> anyhow::Result<()> {
        let url = format!("http://{}/readyz", self.replica.ops);
        let request = reqwest::Client::new().get(url).timeout(Duration::from_secs(1));
        let answer = request.send().await.with_context(|| format!("{} is away", self.replica.name))?;
        let status = answer.status();
        let text = answer.text().await.unwrap_or_default();
        anyhow::ensure!(status.is_success(), "{}: {text}", self.replica.name);
        Ok(())
    }

    fn spawn(&self) -> anyhow::Result<Child> {
        let mut environment = self.replica.environment.clone();
        for (name, address) in
            [("GRPC", self.replica.grpc), ("HTTP", self.replica.http), ("OPS", self.replica.ops)]
        {
            environment.push((format!("TRACKLAYER_PROCESS__LISTEN_{name}"), address.to_string()));
        }
        let arguments = [self.replica.role.as_str().to_owned()];
        let name = &self.replica.name;
        block_in_place(|| Child::start(name, &self.binary, &arguments, &environment, &self.log, None))
    }
}

impl Held<'_> {
    /// Ends it at once (`kill -9`), if it runs.
    ///
    /// # Errors
    /// It does not go.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.end("KILL")
    }

    /// Ends it in order (SIGTERM), if it runs.
    ///
    /// # Errors
    /// It does not end.
    pub fn terminate(&mut self) -> anyhow::Result<()> {
        self.end("TERM")
    }

    fn end(&mut self, signal: &str) -> anyhow::Result<()> {
        let Some(child) = self.child.take() else { return Ok(()) };
        block_in_place(|| {
            if child.exited().is_none() {
                child.signal(signal)?;
                child.wait()?;
            }
            anyhow::Ok(())
        })
    }

    /// Makes it stand still (SIGSTOP), as a paused machine does. Answers whether it ran.
    ///
    /// # Errors
    /// The signal could not be sent.
    pub fn pause(&self) -> anyhow::Result<bool> {
        self.signal("STOP")
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// The signal could not be sent.
    pub fn resume(&self) -> anyhow::Result<bool> {
        self.signal("CONT")
    }

    fn signal(&self, signal: &str) -> anyhow::Result<bool> {
        match self.child.as_ref().filter(|child| child.exited().is_none()) {
            Some(child) => block_in_place(|| child.signal(signal)).map(|()| true),
            None => Ok(false),
        }
    }

    /// Starts it, if it does not run. It is not ready yet.
    ///
    /// # Errors
    /// It could not be started.
    pub fn start(&mut self) -> anyhow::Result<()> {
        if self.child.is_none() {
            *self.child = Some(self.member.spawn()?);
        }
        Ok(())
    }
}

/// All replicas. Dropping ends them at once.
pub struct Fleet {
    members: Vec<Arc<Member>>,
    keeper: JoinHandle<()>,
}

impl Fleet {
    /// Starts the replicas, in this order, with their logs in `logs`; none is ready yet.
    ///
    /// # Errors
    /// One could not be started.
    pub async fn start(binary: &Path, logs: &Path, replicas: Vec<Replica>) -> anyhow::Result<Self> {
        let mut members = Vec::new();
        for replica in replicas {
            let member = Arc::new(Member {
                binary: replica.binary.clone().unwrap_or_else(|| binary.to_owned()),
                log: logs.join(format!("{}.log", replica.name)),
                replica,
                child: tokio::sync::Mutex::default(),
                exits: Mutex::default(),
            });
            member.hold().await.start()?;
            members.push(member);
        }
        let kept = members.clone();
        let keeper = tokio::spawn(async move {
            loop {
                tokio::time::sleep(LOOK).await;
                for member in &kept {
                    start_again(member);
                }
            }
        });
        Ok(Self { members, keeper })
    }

    /// All of them.
    #[must_use]
    pub fn members(&self) -> &[Arc<Member>] {
        &self.members
    }

    /// One of them.
    ///
    /// # Panics
    /// There is none of that name.
    #[must_use]
    pub fn member(&self, name: &str) -> &Arc<Member> {
        let found = self.members.iter().find(|member| member.replica.name == name);
        found.unwrap_or_else(|| panic!("no member `{name}`"))
    }

    /// Waits until every one of them wants traffic.
    ///
    /// # Panics
    /// One does not, for long.
    pub async fn ready(&self) {
        for member in &self.members {
            crate::eventually(&format!("{} to be ready", member.replica.name), async || {
                member.ready().await.map_err(|error| format!("{error:#}\n{}", member.log_tail()))
            })
            .await;
        }
    }
}

/// Starts a member that has ended by itself, unless somebody has it in hands.
fn start_again(member: &Member) {
    let Ok(mut child) = member.child.try_lock() else { return };
    if let Some(running) = child.as_ref() {
        let Some(code) = running.exited() else { return };
        member.exits.lock().unwrap_or_else(PoisonError::into_inner).push(code);
        block_in_place(|| child.take());
    }
    // What cannot be started now is tried again at the next look.
    *child = member.spawn().ok();
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.keeper.abort();
        for member in &self.members {
            // A paused one would not hear SIGTERM.
            if let Ok(child) = member.child.try_lock()
                && let Some(child) = child.as_ref().filter(|child| child.exited().is_none())
            {
                let _ = child.signal("KILL");
            }
        }
    }
}
