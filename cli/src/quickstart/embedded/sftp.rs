//! SFTP version 3 on the real file system, as far as deployments write files: look, make, write, rename, remove.

use nix::sys::statvfs::statvfs;
use russh_sftp::extensions::STATVFS;
use russh_sftp::protocol::{
    Attrs, Data, ExtendedReply, File, FileAttributes, Handle, Name, OpenFlags, Packet, Status, StatusCode,
    Version,
};
use russh_sftp::server::{Handler, StatusReply};
use std::collections::HashMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::sync::Arc;

/// Files open at a time; a client writes one.
const OPEN_FILES: usize = 64;
/// Bytes of one read.
const READ_LIMIT: u32 = 256 << 10;
/// What a mode may set.
const MODE: u32 = 0o7777;

/// The files of one SFTP session. Relative paths begin at the folder that the server was started in.
#[derive(Default)]
pub(super) struct Files {
    open: HashMap<String, Arc<fs::File>>,
    opened: u64,
}

impl Files {
    fn file(&self, handle: &str) -> Result<Arc<fs::File>, StatusReply> {
        self.open.get(handle).cloned().ok_or_else(|| StatusCode::Failure.with_message("no such handle"))
    }
}

/// Runs file system calls where they may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, StatusReply> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(|error| {
        let code = match error.kind() {
            ErrorKind::NotFound => StatusCode::NoSuchFile,
            ErrorKind::PermissionDenied => StatusCode::PermissionDenied,
            _ => StatusCode::Failure,
        };
        code.with_message(error.to_string())
    })
}

fn done(id: u32) -> Status {
    Status { id, status_code: StatusCode::Ok, error_message: "Ok".into(), language_tag: "en-US".into() }
}

fn apply(file: &fs::File, attributes: &FileAttributes) -> io::Result<()> {
    if let Some(size) = attributes.size {
        file.set_len(size)?;
    }
    match attributes.permissions {
        Some(mode) => file.set_permissions(fs::Permissions::from_mode(mode & MODE)),
        None => Ok(()),
    }
}

impl Handler for Files {
    type Error = StatusReply;

    fn unimplemented(&self) -> StatusReply {
        StatusCode::OpUnsupported.into()
    }

    async fn init(
        &mut self,
        _version: u32,
        _extensions: HashMap<String, String>,
    ) -> Result<Version, StatusReply> {
        let mut version = Version::new();
        version.extensions.insert(STATVFS.to_owned(), "2".to_owned());
        Ok(version)
    }

    async fn open(
        &mut self,
        id: u32,
        filename: String,
        pflags: OpenFlags,
        attrs: FileAttributes,
    ) -> Result<Handle, StatusReply> {
        if self.open.len() >= OPEN_FILES {
            return Err(StatusCode::Failure.with_message("too many open files"));
        }
        let mut options = fs::OpenOptions::from(pflags);
        options.mode(attrs.permissions.map_or(0o666, |mode| mode & MODE));
        let file = blocking(move || options.open(filename)).await?;
        self.opened += 1;
        let handle = self.opened.to_string();
        self.open.insert(handle.clone(), Arc::new(file));
        Ok(Handle { id, handle })
    }

    async fn close(&mut self, id: u32, handle: String) -> Result<Status, StatusReply> {
        match self.open.remove(&handle) {
            Some(_) => Ok(done(id)),
            None => Err(StatusCode::Failure.with_message("no such handle")),
        }
    }

    async fn read(&mut self, id: u32, handle: String, offset: u64, len: u32) -> Result<Data, StatusReply> {
        let file = self.file(&handle)?;
        let data = blocking(move || {
            let mut buffer = vec![0_u8; usize::try_from(len.min(READ_LIMIT)).unwrap_or_default()];
            let count = file.read_at(&mut buffer, offset)?;
            buffer.truncate(count);
            Ok(buffer)
        })
        .await?;
        if data.is_empty() { Err(StatusCode::Eof.into()) } else { Ok(Data { id, data }) }
    }

    async fn write(
        &mut self,
        id: u32,
        handle: String,
        offset: u64,
        data: Vec<u8>,
    ) -> Result<Status, StatusReply> {
        let file = self.file(&handle)?;
        blocking(move || file.write_all_at(&data, offset)).await?;
        Ok(done(id))
    }

    async fn stat(&mut self, id: u32, path: String) -> Result<Attrs, StatusReply> {
        let found = blocking(move || fs::metadata(path)).await?;
        Ok(Attrs { id, attrs: FileAttributes::from(&found) })
    }

    async fn lstat(&mut self, id: u32, path: String) -> Result<Attrs, StatusReply> {
        let found = blocking(move || fs::symlink_metadata(path)).await?;
        Ok(Attrs { id, attrs: FileAttributes::from(&found) })
    }

    async fn fstat(&mut self, id: u32, handle: String) -> Result<Attrs, StatusReply> {
        let file = self.file(&handle)?;
        let found = blocking(move || file.metadata()).await?;
        Ok(Attrs { id, attrs: FileAttributes::from(&found) })
    }

    async fn setstat(&mut self, id: u32, path: String, attrs: FileAttributes) -> Result<Status, StatusReply> {
        blocking(move || match (attrs.size, attrs.permissions) {
            (Some(_), _) => apply(&fs::OpenOptions::new().write(true).open(path)?, &attrs),
            (None, Some(mode)) => fs::set_permissions(path, fs::Permissions::from_mode(mode & MODE)),
            (None, None) => fs::metadata(path).map(drop),
        })
        .await?;
        Ok(done(id))
    }

    async fn fsetstat(
        &mut self,
        id: u32,
        handle: String,
        attrs: FileAttributes,
    ) -> Result<Status, StatusReply> {
        let file = self.file(&handle)?;
        blocking(move || apply(&file, &attrs)).await?;
        Ok(done(id))
    }

    async fn mkdir(&mut self, id: u32, path: String, attrs: FileAttributes) -> Result<Status, StatusReply> {
        let mode = attrs.permissions.map_or(0o777, |mode| mode & MODE);
        blocking(move || fs::DirBuilder::new().mode(mode).create(path)).await?;
        Ok(done(id))
    }

    async fn remove(&mut self, id: u32, filename: String) -> Result<Status, StatusReply> {
        blocking(move || fs::remove_file(filename)).await?;
        Ok(done(id))
    }

    async fn rename(&mut self, id: u32, oldpath: String, newpath: String) -> Result<Status, StatusReply> {
        blocking(move || {
            // Version 3 never replaces a file. A link is made only where nothing is, without a gap in between.
            if fs::symlink_metadata(&oldpath)?.is_dir() {
                return match fs::symlink_metadata(&newpath) {
                    Ok(_) => Err(ErrorKind::AlreadyExists.into()),
                    Err(_) => fs::rename(&oldpath, &newpath),
                };
            }
            fs::hard_link(&oldpath, &newpath)?;
            fs::remove_file(&oldpath)
        })
        .await?;
        Ok(done(id))
    }

    async fn realpath(&mut self, id: u32, path: String) -> Result<Name, StatusReply> {
        let path =
            blocking(move || fs::canonicalize(if path.is_empty() { ".".into() } else { path })).await?;
        Ok(Name { id, files: vec![File::dummy(path.display().to_string())] })
    }

    async fn extended(&mut self, id: u32, request: String, data: Vec<u8>) -> Result<Packet, StatusReply> {
        let path = data.get(4..).map(|path| String::from_utf8_lossy(path).into_owned());
        let Some(path) = path.filter(|_| request == STATVFS) else { return Err(self.unimplemented()) };
        let found = blocking(move || statvfs(path.as_str()).map_err(io::Error::from)).await?;
        let fields: [u64; 11] = [
            found.block_size(),
            found.fragment_size(),
            found.blocks(),
            found.blocks_free(),
            found.blocks_available(),
            found.files(),
            found.files_free(),
            found.files_available(),
            found.filesystem_id(),
            // No flag of a mount matters to a client that only asks for space.
            0,
            found.name_max(),
        ];
        let data = fields.iter().flat_map(|field| field.to_be_bytes()).collect();
        Ok(Packet::ExtendedReply(ExtendedReply { id, data }))
    }
}
