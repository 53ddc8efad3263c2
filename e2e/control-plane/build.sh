#!/usr/bin/env bash
# build.sh FOLDER: builds the control plane's one binary into FOLDER and puts the training operator's
# own manifests beside it. Does nothing where FOLDER has what these sources make.
set -euo pipefail
folder=${1:?usage: build.sh FOLDER}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")"

export CGO_ENABLED=0 GOWORK=off
export GOGC=${GOGC:-400} # the compiler collects its garbage less often: quicker, and there is memory
version=$(awk '$1 == "k8s.io/kubernetes" { print $2 }' go.mod)
minor=$(cut -d. -f2 <<<"$version")
version_package=k8s.io/component-base/version
optimized=()
for package in std 'sigs.k8s.io/json/...' 'sigs.k8s.io/structured-merge-diff/...' \
    'k8s.io/apimachinery/...' 'k8s.io/apiserver/...' 'k8s.io/apiextensions-apiserver/...' \
    'k8s.io/kube-openapi/...' 'go.etcd.io/...' 'google.golang.org/...' 'golang.org/x/net/...'; do
    optimized+=("-gcflags=$package=")
done
flags=(
    -trimpath -buildvcs=false -pgo=off
    # Unoptimized takes half as long to build, and tests hardly notice, but for what each call and each
    # list of thousands of jobs goes through. The last pattern that fits a package counts.
    -gcflags='all=-N -l'
    "${optimized[@]}"
    "-ldflags=-s -w -X $version_package.gitVersion=$version -X $version_package.gitMajor=1 -X $version_package.gitMinor=$minor"
)

made_of=$({ go version && echo "${flags[@]}" && cat build.sh go.mod go.sum ./*.go stages.yaml; } | sha256sum)
if [ "$(cat "$folder/made-of" 2>/dev/null)" = "$made_of" ]; then
    exit 0
fi
echo "==> building the control plane for tests: Kubernetes $version, etcd, the training operator" \
    "(6 to 12 minutes on two cores and 2 GB of modules the first time, kept in $folder)"
rm -f "$folder/made-of"
go build "${flags[@]}" -o "$folder/control-plane" .
manifests=$(go list -m -f '{{.Dir}}' github.com/kubeflow/training-operator)/manifests/base
mkdir -p "$folder/operator"
install -m 644 "$manifests/crds/kubeflow.org_pytorchjobs.yaml" "$folder/operator/crd.yaml"
install -m 644 "$manifests/rbac/role.yaml" "$folder/operator/role.yaml"
install -m 644 "$manifests/webhook/manifests.yaml" "$folder/operator/webhook.yaml"
echo "$made_of" >"$folder/made-of"
