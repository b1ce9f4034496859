#!/usr/bin/env bash
# Makes an OCI image of an evoke binary, without a daemon and without root: `FROM scratch`, one layer, a user that is not
# root, and a health check. Prints the digest of the image.
#
#   deploy/image.sh BINARY OUT.tar [TAG]
#
# OUT.tar is an OCI image layout: `podman load -i OUT.tar`, `docker load -i OUT.tar`, `skopeo copy oci-archive:OUT.tar …`.
# The image has no shell, so build components before: `evoke build`. A binary that is linked dynamically is put into the
# image with its loader and its libraries; one that is linked statically is put there alone. The same files give the same
# digest.
set -euo pipefail
binary=$1 out=$2 tag=${3:-evoke:latest}
uid=65532
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root layout=$work/layout
mkdir -p "$root"/{etc/evoke,etc/ssl/certs,tmp} "$work/data/var/lib/evoke" "$layout/blobs/sha256"

install -m 755 "$binary" "$root/evoke"
# The loader and the libraries, at the paths that the loader searches.
{ ldd "$binary" 2>/dev/null || true; } | grep -o '/[^ ]*' | sort -u | while read -r library; do
  install -D -m 755 "$(readlink -f "$library")" "$root$library"
done
for certificates in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/cert.pem; do
  if [ -f "$certificates" ]; then
    install -m 644 "$certificates" "$root/etc/ssl/certs/ca-certificates.crt"
    break
  fi
done
echo "evoke:x:$uid:$uid::/var/lib/evoke:/sbin/nologin" > "$root/etc/passwd"
echo "evoke:x:$uid:" > "$root/etc/group"
chmod 1777 "$root/tmp"
chmod 700 "$work/data/var/lib/evoke"

same=(--sort=name --mtime=@0 --numeric-owner --format=gnu)
tar "${same[@]}" --owner=0 --group=0 -C "$root" -cf "$work/layer.tar" .
tar "${same[@]}" --owner=$uid --group=$uid -C "$work/data" -rf "$work/layer.tar" ./var/lib/evoke
digest() { sha256sum "$1" | cut -d ' ' -f 1; }
size() { stat -c %s "$1"; }
# Moves a file into the layout. Prints its digest.
blob() {
  local name
  name=$(digest "$1")
  mv "$1" "$layout/blobs/sha256/$name"
  echo "$name"
}
diff_id=$(digest "$work/layer.tar")
gzip -n -6 "$work/layer.tar"
layer_size=$(size "$work/layer.tar.gz")
layer=$(blob "$work/layer.tar.gz")
case $(uname -m) in x86_64) arch=amd64 ;; aarch64) arch=arm64 ;; *) arch=$(uname -m) ;; esac

cat > "$work/config.json" <<EOF
{"created":"1970-01-01T00:00:00Z","architecture":"$arch","os":"linux","config":{"User":"$uid:$uid","Env":["PATH=/","EVOKE_DATA=/var/lib/evoke","EVOKE_LOG_FORMAT=json"],"Entrypoint":["/evoke"],"Cmd":["up","/etc/evoke","--http","0.0.0.0:8080"],"WorkingDir":"/var/lib/evoke","Volumes":{"/var/lib/evoke":{}},"ExposedPorts":{"8080/tcp":{}},"StopSignal":"SIGTERM","Healthcheck":{"Test":["CMD","/evoke","status"],"Interval":30000000000,"Timeout":10000000000,"StartPeriod":60000000000,"Retries":3}},"rootfs":{"type":"layers","diff_ids":["sha256:$diff_id"]},"history":[{"created":"1970-01-01T00:00:00Z","created_by":"deploy/image.sh"}]}
EOF
config_size=$(size "$work/config.json")
config=$(blob "$work/config.json")
cat > "$work/manifest.json" <<EOF
{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:$config","size":$config_size},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"sha256:$layer","size":$layer_size}]}
EOF
manifest_size=$(size "$work/manifest.json")
manifest=$(blob "$work/manifest.json")
cat > "$layout/index.json" <<EOF
{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:$manifest","size":$manifest_size,"platform":{"architecture":"$arch","os":"linux"},"annotations":{"org.opencontainers.image.ref.name":"${tag##*:}","io.containerd.image.name":"$tag"}}]}
EOF
echo '{"imageLayoutVersion":"1.0.0"}' > "$layout/oci-layout"
# Older versions of `docker load` read this file only.
echo "[{\"Config\":\"blobs/sha256/$config\",\"RepoTags\":[\"$tag\"],\"Layers\":[\"blobs/sha256/$layer\"]}]" > "$layout/manifest.json"
tar "${same[@]}" --owner=0 --group=0 -C "$layout" -cf "$out" .
echo "sha256:$manifest"
