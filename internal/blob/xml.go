package blob

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// Limits of XML that clients send.
const (
	maxXML      = 8 << 20 // bytes: a list of 50,000 long block ids has about 5 MB
	maxXMLDepth = 6
	maxXMLNodes = 200000
)

// node is one element of XML.
type node struct {
	name string
	text []byte
	kids []*node
}

func badXML(why string) error {
	return fail(http.StatusBadRequest, "InvalidXmlDocument", "The XML in the request is not valid: %s.", why)
}

// readXML reads a request's document, whose root must have the name.
func readXML(w http.ResponseWriter, r *http.Request, root string) (*node, error) {
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxXML))
	var big *http.MaxBytesError
	if errors.As(err, &big) {
		return nil, fail(http.StatusRequestEntityTooLarge, "RequestBodyTooLarge", "The request body is larger than %d bytes.", maxXML)
	}
	if err != nil {
		return nil, cut(err)
	}
	n, err := parseXML(data)
	if err == nil && n.name != root {
		err = badXML(fmt.Sprintf("its root is %q; it must be %s", n.name, root))
	}
	return n, err
}

// parseXML reads one document in UTF-8. It refuses document types, so there are
// no entities but XML's own, and elements in elements beyond what anything here
// needs.
func parseXML(data []byte) (*node, error) {
	dec := xml.NewDecoder(bytes.NewReader(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))))
	var root *node
	var open []*node
	nodes := 0
	for {
		t, err := dec.RawToken()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, badXML("it is not well formed")
		}
		switch t := t.(type) {
		case xml.Directive:
			return nil, badXML("it has a document type")
		case xml.StartElement:
			if nodes++; nodes > maxXMLNodes || len(open) >= maxXMLDepth || len(open) == 0 && root != nil {
				return nil, badXML("it has too many elements, or nests them too deep")
			}
			n := &node{name: t.Name.Local}
			if len(open) == 0 {
				root = n
			} else {
				top := open[len(open)-1]
				top.kids = append(top.kids, n)
			}
			open = append(open, n)
		case xml.EndElement:
			if len(open) == 0 || open[len(open)-1].name != t.Name.Local {
				return nil, badXML("an element is not closed")
			}
			open = open[:len(open)-1]
		case xml.CharData:
			if len(open) > 0 {
				open[len(open)-1].text = append(open[len(open)-1].text, t...)
			} else if len(bytes.TrimSpace(t)) > 0 {
				return nil, badXML("there is text outside of its root")
			}
		}
	}
	if root == nil || len(open) > 0 {
		return nil, badXML("it has no root, or one that is not closed")
	}
	return root, nil
}

// one is the text of the only child of that name, "" if there is none.
func (n *node) one(name string) (string, error) {
	out, found := "", false
	for _, k := range n.kids {
		if k.name != name {
			continue
		}
		if found {
			return "", badXML(name + " is there twice")
		}
		out, found = strings.TrimSpace(string(k.text)), true
	}
	return out, nil
}

// only refuses children of other names.
func (n *node) only(names ...string) error {
	for _, k := range n.kids {
		if !strings.Contains(" "+strings.Join(names, " ")+" ", " "+k.name+" ") {
			return badXML(fmt.Sprintf("%s has the element %q; it may have: %s", n.name, k.name, strings.Join(names, ", ")))
		}
	}
	return nil
}

// blockList reads a list of blocks.
func blockList(n *node) ([]listed, error) {
	if err := n.only(committed, uncommitted, latest); err != nil {
		return nil, err
	}
	if len(n.kids) > maxBlocks {
		return nil, fail(http.StatusBadRequest, "BlockListTooLong", "The block list has %d blocks; at most %d are allowed.", len(n.kids), maxBlocks)
	}
	out := make([]listed, len(n.kids))
	for i, k := range n.kids {
		out[i] = listed{k.name, strings.TrimSpace(string(k.text))}
		if err := checkBlockID(out[i].id); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// policyList reads stored access policies.
func policyList(n *node) (out []policy, err error) {
	if err := n.only("SignedIdentifier"); err != nil {
		return nil, err
	}
	for _, k := range n.kids {
		p := policy{}
		if err := k.only("Id", "AccessPolicy"); err != nil {
			return nil, err
		}
		if p.ID, err = k.one("Id"); err != nil {
			return nil, err
		}
		for _, a := range k.kids {
			if a.name != "AccessPolicy" {
				continue
			}
			if err := a.only("Start", "Expiry", "Permission"); err != nil {
				return nil, err
			}
			for name, to := range map[string]*string{"Start": &p.Start, "Expiry": &p.Expiry, "Permission": &p.Permissions} {
				if *to, err = a.one(name); err != nil {
					return nil, err
				}
			}
		}
		out = append(out, p)
	}
	return out, nil
}
