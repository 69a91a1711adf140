//! A program that a client runs on the embedded target: `/bin/sh -c COMMAND` with its pipes on a channel.

use super::session::Access;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use russh::server::{Handle, Msg};
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Sig};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, Command};

/// Bytes read from a pipe at once: one packet.
const CHUNK: usize = 32 << 10;
/// The extended data type of standard error (RFC 4254 §5.2).
const STDERR: u32 = 1;

/// A started program.
pub(super) struct Program {
    child: Child,
}

impl Program {
    /// Starts it in a process group of its own, so that a signal reaches what the shell started too.
    pub(super) fn start(command: &[u8], access: &Access) -> std::io::Result<Program> {
        let child = Command::new("/bin/sh")
            .arg("-c")
            .arg(OsStr::from_bytes(command))
            .env_clear()
            .env("PATH", &access.path)
            .env("HOME", &access.home)
            .env("USER", &access.user)
            .env("LOGNAME", &access.user)
            .env("SHELL", "/bin/sh")
            .current_dir(&access.home)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()?;
        Ok(Program { child })
    }

    /// Passes input, output and the end on until the channel is over. A program whose client leaves keeps running; its
    /// pipes close.
    pub(super) async fn run(mut self, channel: Channel<Msg>, handle: Handle) {
        let id = channel.id();
        let (mut read, write) = channel.split();
        let group = self.child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        let (stdin, stdout, stderr) =
            (self.child.stdin.take(), self.child.stdout.take(), self.child.stderr.take());
        let outputs = async {
            let ended = async {
                let Ok(status) = self.child.wait().await else { return };
                // The client learns of the end at once, also when a background process keeps the pipes open.
                let sent = match exit_signal(status) {
                    Some((name, core)) => {
                        handle.exit_signal_request(id, name, core, String::new(), String::new()).await.is_ok()
                    }
                    None => write.exit_status(exit_code(status)).await.is_ok(),
                };
                if !sent {
                    tracing::debug!("the client is gone before the program");
                }
            };
            tokio::join!(pump(stdout, &write, None), pump(stderr, &write, Some(STDERR)), ended);
            if write.eof().await.is_err() || write.close().await.is_err() {
                tracing::debug!("the client is gone before the end of the output");
            }
        };
        tokio::select! {
            () = outputs => {}
            () = feed(&mut read, stdin, group) => {}
        }
    }
}

/// Sends what the pipe gives until it ends or the client is gone. A closed pipe tells the program so.
async fn pump(pipe: Option<impl AsyncRead + Unpin>, write: &ChannelWriteHalf<Msg>, kind: Option<u32>) {
    let Some(mut pipe) = pipe else { return };
    let mut buffer = vec![0_u8; CHUNK];
    while let Ok(count) = pipe.read(&mut buffer).await {
        let Some(data) = buffer.get(..count).filter(|data| !data.is_empty()) else { return };
        let sent = match kind {
            None => write.data_bytes(data.to_vec()).await,
            Some(kind) => write.extended_data_bytes(kind, data.to_vec()).await,
        };
        if sent.is_err() {
            return;
        }
    }
}

/// Passes input and signals on; returns when the client closes the channel or the connection ends.
async fn feed(read: &mut ChannelReadHalf, mut stdin: Option<ChildStdin>, group: Option<Pid>) {
    loop {
        match read.wait().await {
            Some(ChannelMsg::Data { data }) => {
                if let Some(pipe) = &mut stdin
                    && pipe.write_all(&data).await.is_err()
                {
                    // The program reads no more; what still comes is thrown away.
                    stdin = None;
                }
            }
            Some(ChannelMsg::Eof) => stdin = None,
            Some(ChannelMsg::Signal { signal }) => {
                if let (Some(group), Some(signal)) = (group, number(&signal))
                    && let Err(error) = killpg(group, signal)
                {
                    tracing::debug!(%error, "the program is gone before the signal");
                }
            }
            Some(ChannelMsg::Close) | None => return,
            Some(_) => {}
        }
    }
}

fn exit_code(status: ExitStatus) -> u32 {
    status.code().and_then(|code| u32::try_from(code).ok()).unwrap_or(255)
}

/// The name of the signal that ended the program, and whether there is a core dump.
fn exit_signal(status: ExitStatus) -> Option<(Sig, bool)> {
    let signal = Signal::try_from(status.signal()?).ok()?;
    // The protocol's names have no SIG in front (RFC 4254 §6.10).
    Some((Sig::Custom(signal.as_str().trim_start_matches("SIG").to_owned()), status.core_dumped()))
}

fn number(signal: &Sig) -> Option<Signal> {
    Some(match signal {
        Sig::ABRT => Signal::SIGABRT,
        Sig::ALRM => Signal::SIGALRM,
        Sig::FPE => Signal::SIGFPE,
        Sig::HUP => Signal::SIGHUP,
        Sig::ILL => Signal::SIGILL,
        Sig::INT => Signal::SIGINT,
        Sig::KILL => Signal::SIGKILL,
        Sig::PIPE => Signal::SIGPIPE,
        Sig::QUIT => Signal::SIGQUIT,
        Sig::SEGV => Signal::SIGSEGV,
        Sig::TERM => Signal::SIGTERM,
        Sig::USR1 => Signal::SIGUSR1,
        Sig::Custom(_) => return None,
    })
}
