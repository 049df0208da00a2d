#!/bin/bash
# Start one Ceph monitor, one object store in memory and one S3 gateway on loopback: start_ceph.sh FOLDER PORT MONITOR_PORT
# User `test`, secret `testtest`. Whoever starts it ends it: process ids lie in FOLDER/*.pid.
set -e
folder=$1 port=$2 monitor=$3
mkdir -p "$folder/mon.a" "$folder/osd.0" "$folder/run" "$folder/gateway"
cd "$folder"
# The class folder is compiled in as a relative path on Debian, so the gateway does not start without an absolute one.
classes=$(dirname "$(find /usr/lib -name libcls_rgw.so 2>/dev/null | head -1)")
cat > ceph.conf <<CONF
[global]
 fsid = $(cat /proc/sys/kernel/random/uuid)
 mon_initial_members = a
 mon_host = [v2:127.0.0.1:$monitor/0]
 auth_cluster_required = cephx
 auth_service_required = cephx
 auth_client_required = cephx
 auth_allow_insecure_global_id_reclaim = true
 public_addr = 127.0.0.1
 cluster_addr = 127.0.0.1
 osd_pool_default_size = 1
 osd_pool_default_min_size = 1
 osd_pool_default_pg_num = 4
 osd_pool_default_pg_autoscale_mode = off
 osd_crush_chooseleaf_type = 0
 mon_allow_pool_size_one = true
 mon_max_pg_per_osd = 1000
 osd_objectstore = memstore
 memstore_device_bytes = 4294967296
 ms_bind_ipv6 = false
 run_dir = $folder/run
 admin_socket = $folder/run/\$name.asok
 log_file = $folder/\$name.log
 pid_file = $folder/\$name.pid
 mon_data = $folder/mon.\$id
 osd_data = $folder/osd.\$id
 keyring = $folder/keyring
 mon_data_avail_crit = 1
 mon_data_avail_warn = 2
 osd_class_dir = $classes
 osd_class_load_list = *
 osd_class_default_list = *
[osd]
 keyring = $folder/osd.0/keyring
[client]
 rgw_data = $folder/gateway
 rgw_frontends = beast endpoint=127.0.0.1:$port
 rgw_enable_gc_threads = false
 rgw_enable_lc_threads = false
 rgw_enable_quota_threads = false
 rgw_run_sync_thread = false
CONF
conf="-c $folder/ceph.conf"
fsid=$(sed -n 's/ *fsid = //p' ceph.conf)
ceph-authtool --create-keyring keyring --gen-key -n mon. --cap mon 'allow *' > /dev/null
ceph-authtool keyring --gen-key -n client.admin --cap mon 'allow *' --cap osd 'allow *' --cap mds 'allow *' > /dev/null
monmaptool --create --clobber --fsid "$fsid" --addv a "[v2:127.0.0.1:$monitor]" monmap > /dev/null
ceph-mon $conf --mkfs -i a --monmap monmap --keyring keyring
ceph-mon $conf -i a
# The store's uuid must be the one that the monitor is told, or it never comes up.
store=$(cat /proc/sys/kernel/random/uuid)
secret=$(ceph-authtool --gen-print-key)
echo "{\"cephx_secret\": \"$secret\"}" | timeout 30 ceph $conf osd new "$store" 0 -i - > /dev/null
ceph-authtool --create-keyring osd.0/keyring --name osd.0 --add-key "$secret" > /dev/null
ceph-osd $conf -i 0 --mkfs --osd-uuid "$store" > /dev/null 2>&1
timeout 30 ceph $conf osd crush add osd.0 1 root=default host=localhost > /dev/null 2>&1
ceph-osd $conf -i 0
for _ in $(seq 100); do ceph $conf osd stat 2> /dev/null | grep -q "1 up" && break; sleep 0.2; done
radosgw $conf -n client.admin
timeout 60 radosgw-admin $conf -n client.admin user create --uid=test --display-name=test --access-key=test --secret-key=testtest > /dev/null
