package main

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/keyutil"
)

// access is who may talk to the API server and how it is known: certificates of
// an authority of its own, the key that signs tokens of service accounts, and one
// random token a user.
type access struct {
	folder      string
	server      string
	certificate string
	key         string
	signingKey  string
	tokens      string
	authority   []byte
}

// users are the API server's own, each with its groups.
var users = map[string]string{
	"admin":                 "system:masters",
	"controllers":           "system:masters",
	"kwok":                  "system:masters",
	"system:kube-scheduler": "system:authenticated",
	"training-operator":     "system:authenticated",
}

// newAccess writes everything into folder, for an API server at the address.
func newAccess(folder, server string) (*access, error) {
	a := &access{
		folder:      folder,
		server:      server,
		certificate: filepath.Join(folder, "tls.crt"),
		key:         filepath.Join(folder, "tls.key"),
		signingKey:  filepath.Join(folder, "service-accounts.key"),
		tokens:      filepath.Join(folder, "tokens.csv"),
	}
	certificate, key, err := cert.GenerateSelfSignedCertKey("127.0.0.1", nil, []string{"localhost"})
	if err != nil {
		return nil, err
	}
	// The authority's certificate is the last of the chain.
	chain := strings.SplitAfter(strings.TrimSpace(string(certificate)), "-----END CERTIFICATE-----\n")
	a.authority = []byte(chain[len(chain)-1] + "\n")
	signingKey, err := keyutil.MakeEllipticPrivateKeyPEM()
	if err != nil {
		return nil, err
	}
	var tokens strings.Builder
	for user, group := range users {
		token := rand.Text()
		fmt.Fprintf(&tokens, "%s,%s,%s,%q\n", token, user, user, group)
		if err := clientcmd.WriteToFile(a.client(token), a.kubeconfig(user)); err != nil {
			return nil, err
		}
	}
	for file, content := range map[string][]byte{
		a.certificate: certificate,
		a.key:         key,
		a.signingKey:  signingKey,
		a.tokens:      []byte(tokens.String()),
	} {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// kubeconfig is the file of a user's kubeconfig.
func (a *access) kubeconfig(user string) string {
	return filepath.Join(a.folder, strings.TrimPrefix(user, "system:")+".kubeconfig")
}

func (a *access) client(token string) clientcmdapi.Config {
	return clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{"test": {Server: a.server, CertificateAuthorityData: a.authority}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{"user": {Token: token}},
		Contexts:       map[string]*clientcmdapi.Context{"test": {Cluster: "test", AuthInfo: "user"}},
		CurrentContext: "test",
	}
}
