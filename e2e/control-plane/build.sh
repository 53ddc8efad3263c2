#!/usr/bin/env bash
# build.sh FOLDER: builds the control plane's binaries into FOLDER and puts the manifests of what they
# run beside them, as their modules have them. Does nothing where FOLDER has what these sources make.
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

made_of=$({ go version && echo "${flags[@]}" && cat build.sh go.mod go.sum ./*.go kueue/*.go stages.yaml; } | sha256sum)
if [ "$(cat "$folder/made-of" 2>/dev/null)" = "$made_of" ]; then
    exit 0
fi
echo "==> building the control plane for tests: Kubernetes $version, etcd, the training operator, Kubeflow Trainer," \
    "JobSet and Kueue (8 to 15 minutes on two cores and 2.5 GB of modules the first time, kept in $folder)"
rm -f "$folder/made-of"
# One after the other: what both need is compiled once, and linking takes 2 GB of memory each.
go build "${flags[@]}" -o "$folder/control-plane" .
echo "==> the control plane was built after $((SECONDS / 60)) minutes and $((SECONDS % 60)) seconds; now Kueue"
go build "${flags[@]}" -o "$folder/kueue-manager" ./kueue

module() { go list -m -f '{{.Dir}}' "$1"; }
# put FOLDER FILE...: the files, and no others.
put() {
    rm -rf "${folder:?}/$1"
    mkdir -p "$folder/$1"
    install -m 644 "${@:2}" "$folder/$1"
}
operator=$(module github.com/kubeflow/training-operator)/manifests/base
mkdir -p "$folder/operator"
install -m 644 "$operator/crds/kubeflow.org_pytorchjobs.yaml" "$folder/operator/crd.yaml"
install -m 644 "$operator/rbac/role.yaml" "$folder/operator/role.yaml"
install -m 644 "$operator/webhook/manifests.yaml" "$folder/operator/webhook.yaml"
trainer=$(module github.com/kubeflow/trainer/v2)/manifests/base
jobset=$(module sigs.k8s.io/jobset)/config/components
kueue=$(module sigs.k8s.io/kueue)/config/components
put trainer/crds "$trainer"/crds/trainer.kubeflow.org_*.yaml "$jobset"/crd/bases/*.yaml
put trainer/webhooks "$trainer/webhook/manifests.yaml"
install -m 644 "$jobset/webhook/manifests.yaml" "$folder/trainer/webhooks/jobset.yaml"
put kueue/crds "$kueue"/crd/bases/*.yaml
put kueue/webhooks "$kueue/webhook/manifests.yaml"
echo "$made_of" >"$folder/made-of"
echo "==> built after $((SECONDS / 60)) minutes and $((SECONDS % 60)) seconds in all"
