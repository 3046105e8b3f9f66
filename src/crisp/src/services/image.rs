//! ImageService: one method an RPC.

use std::{collections::HashMap, sync::Arc};

use crisp_image::{Credentials, FsUsage, Image};
use crisp_proto::v1::{self, image_service_server::ImageService};
use tonic::{Request, Response, Status};

use super::{Services, lists};
use crate::{
    from_wire::{At, image},
    status,
};

type Answer<T> = Result<Response<T>, Status>;

impl Services {
    async fn image_details(&self, image: &Image) -> Result<HashMap<String, String>, Status> {
        let config = self.images.raw_config(image).await.map_err(status::of_image)?;
        let config: serde_json::Value = serde_json::from_slice(&config).unwrap_or_default();
        let details = serde_json::json!({
            "chainID": image.chain_id,
            "platform": image.platform,
            "created": image.created,
            "imageSpec": config,
        });
        Ok(HashMap::from([("info".to_owned(), details.to_string())]))
    }

    fn image_list(&self, filter: Option<&v1::ImageFilter>) -> Result<Vec<v1::Image>, Status> {
        let wanted = image::image_filter(&At::root("filter"), filter)?;
        let images = match wanted {
            Some(name) => self.images.resolve(&name).into_iter().collect(),
            None => self.images.list(),
        };
        Ok(images.iter().map(of_image).collect())
    }
}

fn of_image(image: &Arc<Image>) -> v1::Image {
    v1::Image {
        id: image.id.clone(),
        repo_tags: image.repo_tags.clone(),
        repo_digests: image.repo_digests.clone(),
        size: image.size,
        uid: image.uid.map(|value| v1::Int64Value { value }),
        username: image.username.clone(),
        spec: Some(v1::ImageSpec { image: image.id.clone(), ..Default::default() }),
        pinned: image.pinned,
    }
}

fn credentials(auth: image::Auth) -> Credentials {
    let mut credentials = Credentials { server_address: auth.server_address, ..Credentials::default() };
    match auth.secret {
        image::Secret::Basic { username, password } => {
            (credentials.username, credentials.password) = (username, password);
        }
        image::Secret::Identity(token) => credentials.identity_token = token,
        image::Secret::Bearer(token) => credentials.registry_token = token,
    }
    credentials
}

fn usage(fs: FsUsage) -> v1::FilesystemUsage {
    v1::FilesystemUsage {
        timestamp: fs.timestamp.nanos(),
        fs_id: Some(v1::FilesystemIdentifier { mountpoint: fs.mountpoint.display().to_string() }),
        used_bytes: Some(v1::UInt64Value { value: fs.bytes }),
        inodes_used: Some(v1::UInt64Value { value: fs.inodes }),
    }
}

#[tonic::async_trait]
impl ImageService for Services {
    async fn list_images(&self, request: Request<v1::ListImagesRequest>) -> Answer<v1::ListImagesResponse> {
        let images = self.image_list(request.into_inner().filter.as_ref())?;
        Ok(Response::new(v1::ListImagesResponse { images }))
    }

    type StreamImagesStream = lists::Batches<v1::StreamImagesResponse>;

    async fn stream_images(
        &self,
        request: Request<v1::StreamImagesRequest>,
    ) -> Answer<Self::StreamImagesStream> {
        let images = self.image_list(request.into_inner().filter.as_ref())?;
        Ok(Response::new(lists::batches(images, |images| v1::StreamImagesResponse { images })))
    }

    async fn image_status(
        &self,
        request: Request<v1::ImageStatusRequest>,
    ) -> Answer<v1::ImageStatusResponse> {
        let request = request.into_inner();
        let name = image::image_name(&At::root("image"), request.image.as_ref())?;
        let found = self.images.resolve(&name);
        let info = match (&found, request.verbose) {
            (Some(image), true) => self.image_details(image).await?,
            _ => Default::default(),
        };
        Ok(Response::new(v1::ImageStatusResponse { image: found.as_ref().map(of_image), info }))
    }

    async fn pull_image(&self, request: Request<v1::PullImageRequest>) -> Answer<v1::PullImageResponse> {
        let patience = super::patience(&request);
        let request = request.into_inner();
        let name = image::image_name(&At::root("image"), request.image.as_ref())?;
        let auth = image::auth(&At::root("auth"), request.auth.as_ref())?.map(credentials);
        let begin = std::time::Instant::now();
        let pull = async {
            let pulled = self.images.pull(&name, auth).await;
            self.pods.context().metrics.pull(pulled.is_ok(), begin.elapsed());
            pulled
        };
        let pulled = match patience {
            Some(patience) => tokio::time::timeout(patience, pull).await.map_err(|_| {
                let states: Vec<String> = self.images.progress().iter().map(ToString::to_string).collect();
                Status::deadline_exceeded(format!(
                    "PullImage {name} did not end in time: {}",
                    states.join("; ")
                ))
            })?,
            None => pull.await,
        };
        let image = pulled.map_err(status::of_image)?;
        Ok(Response::new(v1::PullImageResponse { image_ref: image.id.clone() }))
    }

    async fn remove_image(
        &self,
        request: Request<v1::RemoveImageRequest>,
    ) -> Answer<v1::RemoveImageResponse> {
        let name = image::image_name(&At::root("image"), request.into_inner().image.as_ref())?;
        self.images.remove(&name).await.map_err(status::of_image)?;
        Ok(Response::new(v1::RemoveImageResponse {}))
    }

    async fn image_fs_info(&self, _: Request<v1::ImageFsInfoRequest>) -> Answer<v1::ImageFsInfoResponse> {
        Ok(Response::new(v1::ImageFsInfoResponse {
            image_filesystems: vec![usage(self.images.usage())],
            container_filesystems: vec![usage(self.images.containers_usage())],
        }))
    }
}
