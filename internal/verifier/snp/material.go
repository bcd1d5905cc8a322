package snp

import (
	"bytes"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"strings"

	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/fault"
)

// Recognise reads a file of reference material: a VCEK, or a revocation list of
// the manufacturer, PEM or DER. It checks the manufacturer's signature, and leaves
// dates to each use. Foreign material is nil without an error.
func Recognise(data []byte) ([]evidence.Endorsement, error) {
	m, err := amd()
	if err != nil {
		return nil, err
	}
	return m.recognise(data)
}

func (m *makers) recognise(data []byte) ([]evidence.Endorsement, error) {
	der := data
	if block, rest := pem.Decode(data); block != nil && len(bytes.TrimSpace(rest)) == 0 {
		der = block.Bytes
	}
	if cert, err := x509.ParseCertificate(der); err == nil {
		if g, vlek := generationOf(cert); vlek || m.by[g].ark == nil {
			return nil, nil
		}
		e, g, err := m.endorse(der)
		if err != nil {
			return nil, err
		}
		return []evidence.Endorsement{{
			Kind: KindVCEK, Key: wanted(g, e.hardware, e.tcb), Data: der, NotBefore: cert.NotBefore, NotAfter: cert.NotAfter,
		}}, nil
	}
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		return nil, nil //nolint:nilerr // of another kind
	}
	name, mine := strings.CutPrefix(list.Issuer.CommonName, "ARK-")
	g := Generation(name)
	if !mine || m.by[g].ark == nil {
		return nil, nil
	}
	if err := list.CheckSignatureFrom(m.by[g].ark); err != nil {
		return nil, fault.Invalidf("the revocation list is not signed by %s", list.Issuer.CommonName).Because(err)
	}
	return []evidence.Endorsement{{Kind: KindCRL, Key: string(g), Data: der, NotBefore: list.ThisUpdate, NotAfter: list.NextUpdate}}, nil
}

// kds is where the manufacturer hands its endorsements out.
const kds = "https://kdsintf.amd.com"

// Path is where below the address of the manufacturer's key distribution service
// an endorsement is handed out (57230, section 4); empty for what it does not
// have, or for a key that is not well-formed.
func Path(w evidence.Want) string {
	name, rest, _ := strings.Cut(w.Key, "/")
	g := Generation(name)
	switch {
	case g != Milan && g != Genoa && g != Turin:
		return ""
	case w.Kind == KindCRL && rest == "":
		return "/vcek/v1/" + name + "/crl"
	case w.Kind != KindVCEK:
		return ""
	}
	chip, version, _ := strings.Cut(rest, "/")
	want := 64
	if g == Turin {
		want = 8
	}
	id, err1 := hex.DecodeString(chip)
	b, err2 := hex.DecodeString(version)
	if err1 != nil || err2 != nil || len(id) != want || len(b) != 8 {
		return ""
	}
	t, fmc := tcbOf(b, g), ""
	if g == Turin {
		fmc = fmt.Sprintf("fmcSPL=%02d&", t.FMC)
	}
	return fmt.Sprintf("/vcek/v1/%s/%x?%sblSPL=%02d&teeSPL=%02d&snpSPL=%02d&ucodeSPL=%02d", g, id, fmc, t.Bootloader, t.TEE, t.SNP, t.Microcode)
}

// With names what else is wanted with a VCEK: the revocation list of its
// generation.
func With(w evidence.Want) []evidence.Want {
	if w.Kind != KindVCEK {
		return nil
	}
	g, _, _ := strings.Cut(w.Key, "/")
	return []evidence.Want{{Kind: KindCRL, Key: g}}
}
