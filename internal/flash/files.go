package flash

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/heimweg/heimweg/internal/eva"
	"github.com/heimweg/heimweg/internal/fault"
	"github.com/heimweg/heimweg/internal/image"
)

// A Role is what a file is for.
type Role string

// The roles. Firmware, Kernel and Filesystem are written by the bootloader,
// UBoot and RAMSystem start in RAM, System is installed from there.
const (
	Firmware   Role = "firmware"
	Kernel     Role = "kernel"
	Filesystem Role = "file system"
	UBoot      Role = "U-Boot"
	RAMSystem  Role = "RAM system"
	System     Role = "system"
)

// A File is one firmware file, read whole: what was checked is what is sent,
// whatever happens to it on the disk.
type File struct {
	Role   Role // of a fetched file; a given one shows it by its bytes
	Name   string
	Data   []byte
	SHA256 string // that it must have, in hex; "" when nobody said
	Signed string // who vouches for it: "signed by OpenWrt (24.10)"; "" when nobody was asked
	Image  image.Image
}

// Says describes the file in a line: "for AVM FRITZ!Box 4040, OpenWrt 24.10.7,
// whole".
func (f File) Says() string {
	var out []string
	if names := f.Image.Names(); names != "" {
		out = append(out, "for "+names)
	}
	if r := f.Image.Release; r.Version != "" {
		v := "OpenWrt " + r.Version
		if r.Guessed {
			v += " by its kernel"
		}
		out = append(out, v)
	}
	switch f.Image.Whole() {
	case image.Good:
		out = append(out, "whole")
	case image.Bad:
		out = append(out, "damaged")
	case image.NotKnown:
	}
	if f.Signed != "" {
		out = append(out, f.Signed)
	} else {
		out = append(out, "its signature was not checked")
	}
	return strings.Join(out, ", ")
}

// A Need is one file that a box needs.
type Need struct {
	Role    Role
	Profile string // "avm_fritzbox-4040"
	Target  string // "ipq40xx/generic"
	// Type is what OpenWrt's release lists call it: "eva", "sysupgrade", "kernel",
	// "eva-kernel", "eva-filesystem"; "" for U-Boot.
	Type    string
	UBoot   string // "fritz7530": which U-Boot
	Version string // "" the newest
}

// Files fetches what is needed, in the same order, each with its Role set.
type Files func(ctx context.Context, needs []Need) ([]File, error)

// A use is what a file of a role is about to be used for.
type use struct {
	role    Role
	purpose []image.Purpose // all of them must agree
}

// uses are the places that a board has for files, in the order in which they are
// needed.
func uses(b image.Board, hw int, env eva.Environment) []use {
	p := func(u image.Use, part string) image.Purpose {
		out := image.Purpose{Use: u, Board: b.Name, HWRevision: hw, Partition: part}
		if span, ok := env.Partition(part); ok {
			out.Room = span.Size()
		}
		return out
	}
	switch b.Method {
	case image.TwoFiles:
		return []use{{Kernel, []image.Purpose{p(image.FlashThroughEVA, "mtd1")}}, {Filesystem, []image.Purpose{p(image.FlashThroughEVA, "mtd0")}}}
	case image.FromRAM:
		return []use{{RAMSystem, []image.Purpose{p(image.RAMBoot, "")}}, {System, []image.Purpose{p(image.UpgradeOpenWrt, "")}}}
	case image.FromUBoot:
		return []use{{UBoot, []image.Purpose{p(image.RAMBoot, ""), p(image.WriteUBoot, "")}}, {RAMSystem, []image.Purpose{p(image.NetBoot, "")}},
			{System, []image.Purpose{p(image.UpgradeOpenWrt, "")}}}
	case image.OneFile, image.WithUBoot:
	}
	return []use{{Firmware, []image.Purpose{p(image.FlashThroughEVA, "mtd1")}}}
}

// needOf is what has to be fetched for a role.
func needOf(b image.Board, role Role, hw int, version string) Need {
	n := Need{Role: role, Profile: b.Profile, Target: b.Target, Version: version}
	switch role {
	case Firmware:
		n.Type = "sysupgrade"
		if b.Method == image.WithUBoot {
			n.Type = "eva"
		}
	case Kernel:
		n.Type = "eva-kernel"
	case Filesystem:
		n.Type = "eva-filesystem"
	case RAMSystem:
		n.Type = "kernel"
	case System:
		n.Type = "sysupgrade"
	case UBoot:
		n.UBoot = b.UBoots[hw]
	}
	return n
}

// place finds which of the board's places a file is for. A file that fits none is
// a fault that says what it is.
func place(f File, b image.Board, hw int, env eva.Environment) (Role, error) {
	var closest error
	for _, u := range uses(b, hw, env) {
		err := error(nil)
		for _, p := range u.purpose {
			if err = image.For(f.Image, p); err != nil {
				break
			}
		}
		if err == nil {
			return u.role, nil
		}
		if closest == nil || meant(f.Image.Kind, u.role) {
			closest = err
		}
	}
	return "", closest
}

// meant: a file of this kind was meant for that role, so that role's complaint is
// the one to show.
func meant(k image.Kind, r Role) bool {
	switch k {
	case image.Sysupgrade:
		return r == System
	case image.Initramfs:
		return r == RAMSystem
	case image.FileSystem:
		return r == Filesystem
	default:
		return false
	}
}

// Named finds the boards that a person means: "4040", "avm_fritzbox-4040",
// "avm,fritzbox-4040". Boxes whose NAND has two makers are two boards under one
// short name.
func Named(name string) ([]image.Board, error) {
	if b, ok := image.BoardNamed(name); ok {
		return []image.Board{b}, nil
	}
	var out []image.Board
	for _, b := range image.Boards() {
		if strings.EqualFold(b.Short(), name) {
			out = append(out, b)
		}
	}
	if len(out) == 0 {
		return nil, fault.NewUsage("board-unknown", "%q is none of the boards that we know", name).Do("heimweg firmware list shows them")
	}
	return out, nil
}

// Check says what the files are and refuses, before any box is touched, what is
// right for no box that could be meant: with board, what the person says the box
// is; without, whatever the files themselves are for.
func Check(files []File, board string) ([]File, error) {
	var said []image.Board
	if board != "" {
		var err error
		if said, err = Named(board); err != nil {
			return nil, err
		}
	}
	out := slices.Clone(files)
	for i := range out {
		if err := out[i].identify(); err != nil {
			return nil, err
		}
		boards := said
		if boards == nil {
			boards = couldBe(out[i].Image)
		}
		if err := fitsOne(out[i], boards); err != nil {
			return nil, named(err, out[i], len(files) > 1, len(boards) == 0)
		}
	}
	return out, nil
}

func (f *File) identify() error {
	m, err := image.Identify(bytes.NewReader(f.Data), int64(len(f.Data)))
	if err != nil {
		return err
	}
	if f.SHA256 != "" && !strings.EqualFold(f.SHA256, m.SHA256) {
		return fault.New("image-damaged", "%s changed on this computer after it was checked", f.Name).Saw("SHA-256 %s, it was %s", m.SHA256, f.SHA256).
			Do("run the same command again")
	}
	f.Image = m
	return nil
}

// couldBe lists the boards that a file could be for by its own words, or by its
// form where such files name no board.
func couldBe(m image.Image) []image.Board {
	var out []image.Board
	for _, name := range m.Boards {
		if b, ok := image.BoardNamed(name); ok {
			out = append(out, b)
		}
	}
	if len(m.Boards) > 0 {
		return out
	}
	for _, b := range image.Boards() {
		if m.Kind == image.FileSystem && b.Method == image.TwoFiles || m.Kind == image.Kernel && b.Method == image.FromRAM {
			out = append(out, b)
		}
	}
	return out
}

// fitsOne: the file is right for at least one of the boards.
func fitsOne(f File, boards []image.Board) error {
	if len(boards) == 0 {
		boards, _ = Named("4040") // any board: the file is wrong for all
	}
	var first error
	for _, b := range boards {
		_, err := place(f, b, 0, eva.Environment{})
		if err == nil {
			return nil
		}
		if first == nil {
			first = err
		}
	}
	return first
}

// named adds which file it is about, and takes the advice for a certain box away
// where no box is known yet.
func named(err error, f File, several, anyBox bool) error {
	x := fault.Find(err)
	if x == nil {
		return err
	}
	if several {
		x.Seen = append([]string{"the file " + f.Name}, x.Seen...)
	}
	if anyBox {
		x.Next = slices.DeleteFunc(x.Next, func(s string) bool { return strings.Contains(s, "firmware get") })
		if len(x.Next) == 0 {
			x.Do("heimweg flash, without a file, fetches the right one for the box that it finds")
		}
	}
	return x
}

// gather gets the files together for the box that was found: given ones are
// judged again by what the box says of itself, the rest is fetched and judged in
// the same way. skip are roles that are not needed any more.
func (s *Session) gather(ctx context.Context, skip ...Role) error {
	given, version, err := s.sort(s.o.Given)
	if err != nil {
		return err
	}
	if s.o.Version != "" {
		version = s.o.Version
	}
	var needs []Need
	for _, role := range s.roles() {
		if slices.Contains(skip, role) || slices.ContainsFunc(given, func(f File) bool { return f.Role == role }) {
			continue
		}
		boards := s.boards[:1]
		if role == System || role == RAMSystem {
			boards = s.boards // which NAND it has, the system in RAM will say
		}
		for _, b := range boards {
			needs = append(needs, needOf(b, role, s.hw, version))
		}
	}
	fetched, err := s.fetch(ctx, needs)
	if err != nil {
		return err
	}
	s.files = nil
	for _, role := range s.roles() {
		for _, f := range append(slices.Clone(given), fetched...) {
			if f.Role == role {
				s.files = append(s.files, f)
			}
		}
	}
	return nil
}

func (s *Session) roles() []Role {
	var out []Role
	for _, u := range uses(s.boards[0], s.hw, s.env) {
		out = append(out, u.role)
	}
	return out
}

// sort gives every given file its role on this box. A file that says for which of
// two boards it is narrows the choice. The release of one file is that of all.
func (s *Session) sort(files []File) (out []File, version string, err error) {
	for _, f := range files {
		role, b, err := s.place(f)
		if err != nil {
			return nil, "", named(err, f, len(files) > 1, false)
		}
		if i := slices.IndexFunc(out, func(o File) bool { return o.Role == role }); i >= 0 {
			return nil, "", fault.NewUsage("image-twice", "two files are for the same place: the %s", role).Saw("%s and %s", out[i].Name, f.Name).
				Do("name one of them")
		}
		if s.method == image.TwoFiles && role == Kernel && f.Image.Fits(b) {
			s.boards = []image.Board{b}
		}
		f.Role = role
		out = append(out, f)
		if r := f.Image.Release; r.Version != "" && !r.Guessed {
			version = r.Version
		}
	}
	return out, version, nil
}

// place is the role of a file on this box.
func (s *Session) place(f File) (Role, image.Board, error) {
	var first error
	for _, b := range s.boards {
		role, err := place(f, b, s.hw, s.env)
		if err == nil {
			return role, b, nil
		}
		if first == nil {
			first = err
		}
	}
	return "", image.Board{}, first
}

// fetch gets files and trusts them no more than given ones.
func (s *Session) fetch(ctx context.Context, needs []Need) ([]File, error) {
	if len(needs) == 0 {
		return nil, nil
	}
	if s.method == image.TwoFiles && len(s.boards) > 1 {
		return nil, fault.New("board-variant", "%s exists with NAND of two makers, and its bootloader does not say which one it has", s.model()).
			Because("the wrong one of the two images would not start; the bootloader survives that").
			Do("look into FRITZ!OS' support data for \"NAND device\", then name it: --board %s or --board %s", s.boards[0].Profile, s.boards[1].Profile)
	}
	if s.o.Files == nil {
		return nil, fault.New("no-files", "%s needs a file that was not given: the %s", s.model(), needs[0].Role).
			Do("name it, too: heimweg flash FILE FILE")
	}
	end := s.o.Tell.Stage("files", "fetching the files for "+s.model())
	got, err := s.o.Files(ctx, needs)
	if err == nil && len(got) != len(needs) {
		err = fault.NewBug("%d files were fetched where %d were needed", len(got), len(needs))
	}
	for i := range got {
		if err != nil {
			break
		}
		if err = got[i].identify(); err == nil {
			var role Role
			if role, _, err = s.place(got[i]); err == nil && role != needs[i].Role {
				err = fault.New("image-wrong-kind", "what was fetched as the %s is something else", needs[i].Role).Saw("%s", got[i].Image.Format).
					Do("heimweg firmware check %s says more", got[i].Name)
			}
			got[i].Role = role
		}
	}
	end(err, fmt.Sprintf("%s here and checked", plural(len(got), "file is", "files are")))
	return got, err
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + many
}

// file is the file of a role; of several, the one for that board.
func (s *Session) file(role Role, b image.Board) (File, bool) {
	var out []File
	for _, f := range s.files {
		if f.Role == role {
			out = append(out, f)
		}
	}
	for _, f := range out {
		if f.Image.Fits(b) {
			return f, true
		}
	}
	if len(out) == 1 && (len(out[0].Image.Boards) == 0 || role != System && len(s.boards) > 1) {
		return out[0], true // it names no board; or it starts on its sibling, too, to find out which is which
	}
	return File{}, false
}

// evaRoles are package eva's words for what goes through the bootloader.
var evaRoles = map[Role]eva.Role{Firmware: eva.Firmware, Kernel: eva.Kernel, Filesystem: eva.Filesystem, RAMSystem: eva.Initramfs, UBoot: eva.SecondBoot}

// forLoader are the files that the bootloader gets, and what is known of them.
func (s *Session) forLoader() (files []eva.File, data [][]byte) {
	for _, role := range s.known.Needs() {
		for own, theirs := range evaRoles {
			if theirs != role {
				continue
			}
			if f, ok := s.file(own, s.boards[0]); ok {
				files = append(files, eva.File{Role: role, Size: int64(len(f.Data)), SHA256: sha256.Sum256(f.Data)})
				data = append(data, f.Data)
			}
		}
	}
	return files, data
}
