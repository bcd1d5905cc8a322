package tdx

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"slices"
	"strings"

	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/fault"
)

// nameRoot is the name of the root in the program.
const nameRoot = "Intel SGX Root CA"

// Recognise reads a file of Intel's collateral: TCB info, the identity of the
// quoting enclave, a chain with the certificate that signs both or with an
// authority of PCK certificates, or a revocation list. Foreign material is nil
// without an error. Certificates are verified here, what they signed by [Vouch];
// dates are checked with each use.
func Recognise(data []byte) ([]evidence.Endorsement, error) {
	root, err := intelRoot()
	if err != nil {
		return nil, err
	}
	switch head := data[:min(len(data), 64)]; {
	case bytes.Contains(head, []byte(`"tcbInfo"`)):
		return recogniseTCBInfo(data)
	case bytes.Contains(head, []byte(`"enclaveIdentity"`)):
		return recogniseIdentity(data)
	}
	der := data
	if block, _ := pem.Decode(data); block != nil {
		if der = block.Bytes; block.Type == "CERTIFICATE" {
			return recogniseChain(data, root)
		}
	}
	list, err := x509.ParseRevocationList(der)
	if err != nil || !strings.HasPrefix(list.Issuer.CommonName, "Intel SGX ") {
		return nil, nil //nolint:nilerr // of another kind
	}
	return []evidence.Endorsement{{
		Kind: KindCRL, Key: list.Issuer.CommonName, Data: der, NotBefore: list.ThisUpdate, NotAfter: list.NextUpdate,
	}}, nil
}

func recogniseTCBInfo(data []byte) ([]evidence.Endorsement, error) {
	signed, _, err := document(data, "tcbInfo")
	if err != nil {
		return nil, err
	}
	t, err := parseTCBInfo(signed)
	if err != nil {
		return nil, err
	}
	return []evidence.Endorsement{{Kind: KindTCBInfo, Key: strings.ToLower(t.FMSPC), Data: data, NotBefore: t.Issued, NotAfter: t.Next}}, nil
}

func recogniseIdentity(data []byte) ([]evidence.Endorsement, error) {
	signed, _, err := document(data, "enclaveIdentity")
	if err != nil {
		return nil, err
	}
	q, err := parseIdentity(signed)
	if err != nil {
		return nil, err
	}
	return []evidence.Endorsement{{Kind: KindIdentity, Data: data, NotBefore: q.Issued, NotAfter: q.Next}}, nil
}

// recogniseChain reads a certificate that Intel's root issued; the root may stand
// behind it.
func recogniseChain(text []byte, root *x509.Certificate) ([]evidence.Endorsement, error) {
	block, _ := pem.Decode(text)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, nil //nolint:nilerr // of another kind
	}
	var kind, key string
	switch cert.Subject.CommonName {
	case nameSigning:
		kind = KindSigner
	case namePlatform, nameProcessor:
		kind, key = KindAuthority, cert.Subject.CommonName
	default:
		return nil, nil
	}
	if _, err := parseIssued(text, root, cert.Subject.CommonName); err != nil {
		return nil, err
	}
	return []evidence.Endorsement{{Kind: kind, Key: key, Data: text, NotBefore: cert.NotBefore, NotAfter: cert.NotAfter}}, nil
}

// Vouch verifies that Intel signed a document or a revocation list, by the
// certificates in from. Those of the list's or the documents' signer that are not
// there are a fault of kind Invalid which says what is to be imported first.
func Vouch(e evidence.Endorsement, from evidence.Endorsements) error {
	root, err := intelRoot()
	if err != nil {
		return err
	}
	switch e.Kind {
	case KindTCBInfo, KindIdentity:
		text := from.Find(KindSigner, "")
		if text == nil {
			return fault.Invalidf("the certificate %q that signs it is not there: import it with it or before it (header TCB-Info-Issuer-Chain, decoded)", nameSigning)
		}
		signer, err := parseIssued(text, root, nameSigning)
		if err != nil {
			return err
		}
		if e.Kind == KindTCBInfo {
			_, err = read(e.Data, "tcbInfo", parseTCBInfo, signer)
		} else {
			_, err = read(e.Data, "enclaveIdentity", parseIdentity, signer)
		}
		return err
	case KindCRL:
		issuer := root
		if e.Key != nameRoot {
			text := from.Find(KindAuthority, e.Key)
			if text == nil {
				return fault.Invalidf("the certificate %q that signs it is not there: import it with it or before it (header SGX-PCK-CRL-Issuer-Chain, decoded)", e.Key)
			}
			if issuer, err = parseIssued(text, root, e.Key); err != nil {
				return err
			}
		}
		list, err := x509.ParseRevocationList(e.Data)
		if err != nil || list.CheckSignatureFrom(issuer) != nil {
			return fault.Invalidf("the revocation list is not signed by %s", issuer.Subject.CommonName)
		}
	}
	return nil
}

// Path is where below the address of Intel's provisioning certification service,
// or of a caching one, an endorsement is handed out (PCS API v4), and in which
// header of the answer the chain of its signer stands. It is empty for what they
// do not have, or for a key that is not well-formed.
func Path(w evidence.Want) (path, chain string) {
	switch w.Kind {
	case KindTCBInfo:
		if len(w.Key) == 12 && strings.Trim(w.Key, "0123456789abcdef") == "" {
			return "/tdx/certification/v4/tcb?fmspc=" + w.Key, "TCB-Info-Issuer-Chain"
		}
	case KindIdentity:
		return "/tdx/certification/v4/qe/identity", "SGX-Enclave-Identity-Issuer-Chain"
	case KindCRL:
		switch w.Key {
		case nameRoot:
			return "/sgx/certification/v4/rootcacrl", ""
		case namePlatform:
			return "/sgx/certification/v4/pckcrl?ca=platform&encoding=der", "SGX-PCK-CRL-Issuer-Chain"
		case nameProcessor:
			return "/sgx/certification/v4/pckcrl?ca=processor&encoding=der", "SGX-PCK-CRL-Issuer-Chain"
		}
	}
	return "", ""
}

// With names what else is wanted for the collateral of one platform: all of it is
// used together.
func With(w evidence.Want) []evidence.Want {
	if w.Kind != KindTCBInfo && w.Kind != KindIdentity && w.Kind != KindSigner {
		return nil
	}
	all := []evidence.Want{{Kind: KindIdentity}, {Kind: KindCRL, Key: nameRoot}, {Kind: KindCRL, Key: namePlatform}, {Kind: KindCRL, Key: nameProcessor}}
	return slices.DeleteFunc(all, func(o evidence.Want) bool { return o == w })
}
