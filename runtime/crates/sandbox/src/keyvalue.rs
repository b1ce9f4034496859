//! Implements `wasi:keyvalue` on the state of the attempt.

use wasmtime::component::Resource;

use super::bindings::wasi::keyvalue::store::{self, Error, KeyResponse};
use super::bindings::wasi::keyvalue::{atomics, batch};
use super::host::HostContext;
use super::state::{BucketName, Refusal};

/// The guest's handle of an open bucket.
#[allow(unreachable_pub, reason = "the generated bindings export it, from a private module")]
pub struct Bucket(BucketName);

type Result<T> = std::result::Result<T, Error>;

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::Other(refusal.message().to_owned())
    }
}

impl HostContext {
    fn bucket(&self, bucket: &Resource<Bucket>) -> Result<BucketName> {
        let bucket = self.resources.get(bucket).map_err(|error| Error::Other(error.to_string()))?;
        Ok(bucket.0)
    }
}

impl store::Host for HostContext {
    fn open(&mut self, identifier: String) -> Result<Resource<Bucket>> {
        let name = self.session.open(&self.invocation.identity.name, &identifier).ok_or(Error::NoSuchStore)?;
        let full = |_| Error::Other("the function holds too many handles; close buckets that it is done with".into());
        self.resources.push(Bucket(name)).map_err(full)
    }
}

impl store::HostBucket for HostContext {
    async fn get(&mut self, bucket: Resource<Bucket>, key: String) -> Result<Option<Vec<u8>>> {
        let name = self.bucket(&bucket)?;
        Ok(self.session.get(name, &key).await?.map(Vec::from))
    }

    async fn set(&mut self, bucket: Resource<Bucket>, key: String, value: Vec<u8>) -> Result<()> {
        let name = self.bucket(&bucket)?;
        Ok(self.session.set(name, &key, value).await?)
    }

    async fn delete(&mut self, bucket: Resource<Bucket>, key: String) -> Result<()> {
        let name = self.bucket(&bucket)?;
        Ok(self.session.delete(name, &key).await?)
    }

    async fn exists(&mut self, bucket: Resource<Bucket>, key: String) -> Result<bool> {
        let name = self.bucket(&bucket)?;
        Ok(self.session.get(name, &key).await?.is_some())
    }

    async fn list_keys(&mut self, bucket: Resource<Bucket>, cursor: Option<u64>) -> Result<KeyResponse> {
        let name = self.bucket(&bucket)?;
        let (keys, cursor) = self.session.list(name, cursor).await?;
        Ok(KeyResponse { keys, cursor })
    }

    fn drop(&mut self, bucket: Resource<Bucket>) -> wasmtime::Result<()> {
        self.resources.delete(bucket)?;
        Ok(())
    }
}

impl atomics::Host for HostContext {
    async fn increment(&mut self, bucket: Resource<Bucket>, key: String, delta: u64) -> Result<u64> {
        let name = self.bucket(&bucket)?;
        Ok(self.session.increment(name, &key, delta).await?)
    }
}

impl batch::Host for HostContext {
    async fn get_many(
        &mut self,
        bucket: Resource<Bucket>,
        keys: Vec<String>,
    ) -> Result<Vec<Option<(String, Vec<u8>)>>> {
        let name = self.bucket(&bucket)?;
        let mut found = Vec::with_capacity(keys.len());
        for key in keys {
            let value = self.session.get(name, &key).await?;
            found.push(value.map(|value| (key, value.into())));
        }
        Ok(found)
    }

    async fn set_many(&mut self, bucket: Resource<Bucket>, values: Vec<(String, Vec<u8>)>) -> Result<()> {
        let name = self.bucket(&bucket)?;
        for (key, value) in values {
            self.session.set(name, &key, value).await?;
        }
        Ok(())
    }

    async fn delete_many(&mut self, bucket: Resource<Bucket>, keys: Vec<String>) -> Result<()> {
        let name = self.bucket(&bucket)?;
        for key in keys {
            self.session.delete(name, &key).await?;
        }
        Ok(())
    }
}
